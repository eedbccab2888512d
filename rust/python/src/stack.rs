//! The stack in this process: its descriptors for Python.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd;
use std::process;
use std::sync::Arc;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::io::Errno;

use stack::connection::Limits;
use stack::service::{Service, Socket};

/// The least MTU of IPv6, and the largest of any packet.
const MTU: std::ops::RangeInclusive<usize> = 576..=65_535;

/// Something of this process. A forked child has neither its thread nor its state.
struct Local<T> {
    value: Option<T>,
    process: u32,
}

impl<T> Local<T> {
    fn new(value: T) -> Local<T> {
        Local { value: Some(value), process: process::id() }
    }

    fn get(&self) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.process == process::id() => Ok(value),
            _ => {
                let what = "the socket's stack is in the parent process; make another tunnel";
                Err(PyOSError::new_err((Errno::BADF.raw_os_error(), what)))
            }
        }
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.process != process::id() {
            std::mem::forget(self.value.take()); // its locks may be held, its descriptors shared
        }
    }
}

/// Makes an OSError, of the class that Python chooses for the number.
fn failed(error: Errno) -> PyErr {
    let number = error.raw_os_error();
    let text = io::Error::from(error).to_string();
    let text = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned();
    PyOSError::new_err((number, text))
}

fn address(host: &str, port: u16) -> PyResult<SocketAddr> {
    let ip: IpAddr = host
        .parse()
        .map_err(|_| PyValueError::new_err(format!("{host:?} is not a numeric IP address")))?;
    Ok(SocketAddr::new(ip, port))
}

#[pyclass(name = "Stack", module = "wiresnake._native", frozen)]
pub struct PyStack(Local<Arc<Service>>);

#[pymethods]
impl PyStack {
    #[new]
    #[pyo3(signature = (addresses, mtu, offloads=true))]
    fn new(addresses: Vec<String>, mtu: usize, offloads: bool) -> PyResult<PyStack> {
        if !MTU.contains(&mtu) {
            return Err(PyValueError::new_err(format!("an MTU is from 576 to 65535, not {mtu}")));
        }
        let ips = addresses.iter().map(|ip| Ok(address(ip, 0)?.ip())).collect::<PyResult<_>>()?;
        Ok(PyStack(Local::new(Service::new(ips, Limits { mtu, offloads })?)))
    }

    fn open(&self, py: Python<'_>, v6: bool, stream: bool) -> PyResult<(PyStackSocket, i32)> {
        let service = self.service()?;
        let (socket, fd) = py.detach(|| service.open(v6, stream)).map_err(failed)?;
        Ok((PyStackSocket(Local::new(socket)), fd.into_raw_fd()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let service = self.service()?;
        py.detach(|| service.close());
        Ok(())
    }
}

impl PyStack {
    pub fn service(&self) -> PyResult<&Arc<Service>> {
        self.0.get()
    }
}

impl Drop for PyStack {
    fn drop(&mut self) {
        if let Ok(service) = self.service() {
            service.close();
        }
    }
}

#[pyclass(name = "StackSocket", module = "wiresnake._native", frozen)]
pub struct PyStackSocket(Local<Socket>);

#[pymethods]
impl PyStackSocket {
    fn bind(&self, py: Python<'_>, host: &str, port: u16) -> PyResult<()> {
        let (socket, at) = (self.0.get()?, address(host, port)?);
        py.detach(|| socket.bind(at)).map_err(failed)
    }

    #[pyo3(signature = (host, port, filler=0))]
    fn connect(&self, py: Python<'_>, host: &str, port: u16, filler: usize) -> PyResult<()> {
        let (socket, to) = (self.0.get()?, address(host, port)?);
        py.detach(|| socket.connect(to, filler)).map_err(failed)
    }

    fn listen(&self, py: Python<'_>, backlog: usize) -> PyResult<()> {
        let socket = self.0.get()?;
        py.detach(|| socket.listen(backlog)).map_err(failed)
    }

    fn accepted(&self, py: Python<'_>, number: usize) -> PyResult<PyStackSocket> {
        let socket = self.0.get()?;
        let accepted = py.detach(|| socket.accepted(number)).map_err(failed)?;
        Ok(PyStackSocket(Local::new(accepted)))
    }

    fn set_keepalive(&self, py: Python<'_>, seconds: Option<u64>) -> PyResult<()> {
        let socket = self.0.get()?;
        py.detach(|| socket.set_keepalive(seconds)).map_err(failed)
    }

    fn longest_datagram(&self) -> PyResult<usize> {
        Ok(self.0.get()?.longest_datagram())
    }

    fn take_error(&self) -> PyResult<i32> {
        Ok(self.0.get()?.report().error.take().map_or(0, Errno::raw_os_error))
    }

    #[getter]
    fn state(&self) -> PyResult<&'static str> {
        let report = self.0.get()?.report();
        Ok(match (report.connecting, report.connected) {
            (true, _) => "connecting",
            (_, true) => "connected",
            _ => "unconnected",
        })
    }

    #[getter]
    fn local(&self) -> PyResult<Option<(String, u16)>> {
        Ok(self.0.get()?.report().local.map(text))
    }

    #[getter]
    fn remote(&self) -> PyResult<Option<(String, u16)>> {
        Ok(self.0.get()?.report().remote.map(text))
    }
}

fn text(address: SocketAddr) -> (String, u16) {
    (address.ip().to_string(), address.port())
}
