// Command netstack leads TCP into a tunnel of wireguard-go, whose stack is gVisor's: the design of
// wireproxy, for the benchmark. It serves SOCKS5 (CONNECT to IPv4 addresses) and fixed forwards.
//
//	netstack --version
//	netstack UAPI-FILE ADDRESS MTU SOCKS-PORT [PORT:ADDRESS:PORT ...]
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

func main() {
	if os.Args[1] == "--version" {
		build, _ := debug.ReadBuildInfo()
		for _, module := range build.Deps {
			if module.Path == "golang.zx2c4.com/wireguard" {
				fmt.Println(module.Version)
			}
		}
		return
	}
	uapi, err := os.ReadFile(os.Args[1])
	check(err)
	mtu, err := strconv.Atoi(os.Args[3])
	check(err)
	addresses := []netip.Addr{netip.MustParseAddr(os.Args[2])}
	tun, tunnel, err := netstack.CreateNetTUN(addresses, nil, mtu)
	check(err)
	quiet := device.NewLogger(device.LogLevelError, "")
	wireguard := device.NewDevice(tun, conn.NewDefaultBind(), quiet)
	check(wireguard.IpcSet(string(uapi)))
	check(wireguard.Up())
	for _, forward := range os.Args[5:] {
		port, target, _ := strings.Cut(forward, ":")
		to := netip.MustParseAddrPort(target)
		go listen(port, func(client net.Conn) { lead(tunnel, client, to, nil, nil) })
	}
	listen(os.Args[4], func(client net.Conn) { socks(tunnel, client) })
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func listen(port string, serve func(net.Conn)) {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	check(err)
	fmt.Println("listens at", port)
	for {
		client, err := listener.Accept()
		check(err)
		go serve(client)
	}
}

func socks(tunnel *netstack.Net, client net.Conn) {
	said := make([]byte, 257)
	if _, err := io.ReadFull(client, said[:2]); err != nil {
		client.Close()
		return
	}
	io.ReadFull(client, said[:said[1]])
	client.Write([]byte{5, 0})
	if _, err := io.ReadFull(client, said[:10]); err != nil || said[3] != 1 {
		client.Close()
		return
	}
	address, _ := netip.AddrFromSlice(said[4:8])
	to := netip.AddrPortFrom(address, uint16(said[8])<<8|uint16(said[9]))
	granted := []byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	refused := []byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0}
	lead(tunnel, client, to, granted, refused)
}

func lead(tunnel *netstack.Net, client net.Conn, to netip.AddrPort, granted, refused []byte) {
	defer client.Close()
	far, err := tunnel.DialContextTCPAddrPort(context.Background(), to)
	if err != nil {
		client.Write(refused)
		return
	}
	defer far.Close()
	client.Write(granted)
	done := make(chan bool)
	go func() {
		io.Copy(far, client)
		far.CloseWrite()
		done <- true
	}()
	io.Copy(client, far)
	client.(*net.TCPConn).CloseWrite()
	<-done
}
