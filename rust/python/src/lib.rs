//! The module that Python imports. `_native.pyi` describes it.

mod stack;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::process;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView, PySlice, PyString};
use rustix::fd::RawFd;
#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroize::Zeroizing;

use plane::drops::Unreported;
use plane::gate::{Gate, Verdict};
use plane::panics;
use plane::peer::Peer;
use plane::plane::Plane;
use plane::secret::{self, Choice, Format, Malformed, PresharedKey, PrivateKey};
use plane::secret::{SharedSecret, SymmetricState};
use plane::session::{HEADER, OVERHEAD, Session};
use plane::shared::now;
use plane::sockets::{Endpoint, Sockets, duplicate};
#[cfg(target_os = "linux")]
use plane::tun::Tun;
use plane::uapi;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPrivateKey>()?;
    module.add_class::<PyPresharedKey>()?;
    module.add_class::<PySharedSecret>()?;
    module.add_class::<PySymmetricState>()?;
    module.add_class::<PySession>()?;
    module.add_class::<PyEndpoint>()?;
    module.add_class::<PyGate>()?;
    module.add_class::<PyEntropy>()?;
    module.add_class::<PyPlane>()?;
    module.add_class::<stack::PyStack>()?;
    module.add_class::<stack::PyStackSocket>()?;
    module.add("PanicException", module.py().get_type::<PanicException>())?;
    module.add_function(wrap_pyfunction!(open_cookie, module)?)?;
    module.add_function(wrap_pyfunction!(cipher, module)?)?;
    module.add_function(wrap_pyfunction!(clock, module)?)?;
    module.add_function(wrap_pyfunction!(take_panics, module)?)?;
    module.add_function(wrap_pyfunction!(protect_memory, module)?)
}

/// Defines a handle of a key. The key is parsed from text and can only be written as text.
macro_rules! key_handle {
    ($handle:ident, $key:ident, $name:literal, { $($more:tt)* }) => {
        #[pyclass(name = $name, module = "wiresnake._native", frozen)]
        pub struct $handle(Guarded<$key>);

        #[pymethods]
        impl $handle {
            #[staticmethod]
            fn generate() -> $handle {
                $handle(Guarded::new($key::generate()))
            }

            #[staticmethod]
            fn from_hex(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<$handle>> {
                Ok(read_key(py, &text, Format::Hex, $key::parse)?.map($handle))
            }

            #[staticmethod]
            fn from_base64(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<$handle>> {
                Ok(read_key(py, &text, Format::Base64, $key::parse)?.map($handle))
            }

            fn write_hex(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
                write_key(buffer, offset, Format::Hex, $key::write, self.0.get()?)
            }

            fn write_base64(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
                write_key(buffer, offset, Format::Base64, $key::write, self.0.get()?)
            }

            fn __eq__(&self, other: &$handle) -> PyResult<bool> {
                Ok(self.0.get()? == other.0.get()?)
            }

            fn __repr__(&self) -> &'static str {
                concat!($name, "(hidden)")
            }


            $($more)*
        }
    };
}

key_handle!(PyPresharedKey, PresharedKey, "PresharedKey", {});
key_handle!(PyPrivateKey, PrivateKey, "PrivateKey", {
    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.0.get()?.public()))
    }

    fn exchange(&self, public: &[u8]) -> PyResult<Option<PySharedSecret>> {
        let result = self.0.get()?.exchange(&exactly(public, "a public key")?);
        Ok(result.map(|result| PySharedSecret(Guarded::new(result))))
    }
});

#[pyclass(name = "SharedSecret", module = "wiresnake._native", frozen)]
pub struct PySharedSecret(Guarded<SharedSecret>);

#[pymethods]
impl PySharedSecret {
    fn __eq__(&self, other: &PySharedSecret) -> PyResult<bool> {
        Ok(self.0.get()? == other.0.get()?)
    }

    fn __repr__(&self) -> &'static str {
        "SharedSecret(hidden)"
    }
}

// None after `split`.
#[pyclass(name = "SymmetricState", module = "wiresnake._native")]
pub struct PySymmetricState(Guarded<Option<SymmetricState>>);

#[derive(FromPyObject)]
enum Material<'py> {
    Secret(Bound<'py, PySharedSecret>),
    Bytes(Bound<'py, PyBytes>),
}

#[pymethods]
impl PySymmetricState {
    #[new]
    fn new(protocol_name: &[u8]) -> PySymmetricState {
        PySymmetricState(Guarded::new(Some(SymmetricState::new(protocol_name))))
    }

    fn copy(&self) -> PyResult<PySymmetricState> {
        Ok(PySymmetricState(Guarded::new(Some(self.state()?.copy()))))
    }

    #[getter]
    fn hash<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.state()?.hash()))
    }

    fn mix_hash(&mut self, data: &[u8]) -> PyResult<()> {
        self.state_mut()?.mix_hash(data);
        Ok(())
    }

    fn mix_key(&mut self, material: Material<'_>) -> PyResult<()> {
        let state = self.state_mut()?;
        match material {
            Material::Secret(secret) => state.mix_secret(secret.get().0.get()?),
            Material::Bytes(bytes) => state.mix_key(bytes.as_bytes()),
        }
        Ok(())
    }

    fn mix_key_and_hash(&mut self, psk: Option<&Bound<'_, PyPresharedKey>>) -> PyResult<()> {
        let psk = psk.map(|psk| psk.get().0.get()).transpose()?;
        self.state_mut()?.mix_key_and_hash(psk);
        Ok(())
    }

    fn encrypt_and_hash<'py>(
        &mut self,
        py: Python<'py>,
        plaintext: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.state_mut()?.encrypt_and_hash(plaintext)))
    }

    fn decrypt_and_hash<'py>(
        &mut self,
        py: Python<'py>,
        ciphertext: &[u8],
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let plaintext = self.state_mut()?.decrypt_and_hash(ciphertext);
        Ok(plaintext.map(|plaintext| PyBytes::new(py, &plaintext)))
    }

    fn split(
        &mut self,
        initiator: bool,
        local_index: u32,
        remote_index: u32,
        created: u64,
        lifetimes: [u64; 3],
    ) -> PyResult<PySession> {
        self.state()?;
        let state = self.0.get_mut()?.take().ok_or_else(split_already)?;
        let (first, second) = state.split();
        let (send, receive) = if initiator { (first, second) } else { (second, first) };
        let session =
            Session::new(send, receive, local_index, remote_index, initiator, created, lifetimes);
        Ok(PySession(Guarded::new(Arc::new(session))))
    }

    fn __repr__(&self) -> &'static str {
        "SymmetricState(hidden)"
    }
}

impl PySymmetricState {
    fn state(&self) -> PyResult<&SymmetricState> {
        self.0.get()?.as_ref().ok_or_else(split_already)
    }

    fn state_mut(&mut self) -> PyResult<&mut SymmetricState> {
        self.0.get_mut()?.as_mut().ok_or_else(split_already)
    }
}

fn split_already() -> PyErr {
    PyRuntimeError::new_err("this SymmetricState was split; its session has the keys")
}

#[pyclass(name = "Session", module = "wiresnake._native", frozen)]
pub struct PySession(Guarded<Arc<Session>>);

impl PySession {
    /// Returns the session, for the plane to install.
    pub fn session(&self) -> PyResult<&Arc<Session>> {
        self.0.get()
    }
}

#[pymethods]
impl PySession {
    #[getter]
    fn local_index(&self) -> PyResult<u32> {
        Ok(self.session()?.local_index)
    }

    #[getter]
    fn remote_index(&self) -> PyResult<u32> {
        Ok(self.session()?.remote_index)
    }

    #[getter]
    fn initiator(&self) -> PyResult<bool> {
        Ok(self.session()?.initiator)
    }

    #[getter]
    fn created(&self) -> PyResult<u64> {
        Ok(self.session()?.created)
    }

    fn seal<'py>(
        &self,
        py: Python<'py>,
        packet: &[u8],
        now: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let session = self.session()?;
        let Some(counter) = session.can_send(now).then(|| session.claim(1)).flatten() else {
            return Ok(None);
        };
        let message = PyBytes::new_with(py, packet.len() + OVERHEAD, |message| {
            message[HEADER..][..packet.len()].copy_from_slice(packet);
            session.seal_in_place(counter, message);
            Ok(())
        })?;
        Ok(Some(message))
    }

    fn open<'py>(
        &self,
        py: Python<'py>,
        datagram: &[u8],
        now: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut message = datagram.to_vec();
        let packet = self.session()?.open_in_place(&mut message, now);
        Ok(packet.map(|packet| PyBytes::new(py, packet)))
    }

    fn rekey_due(&self, now: u64, sending: bool) -> PyResult<bool> {
        Ok(self.session()?.rekey_due(now, sending))
    }

    fn __repr__(&self) -> &'static str {
        "Session(hidden)"
    }
}

#[pyclass(name = "Endpoint", module = "wiresnake._native", frozen)]
pub struct PyEndpoint(pub Endpoint);

#[pymethods]
impl PyEndpoint {
    #[new]
    #[pyo3(signature = (host, port, scope=None))]
    fn new(
        host: &str,
        port: &Bound<'_, PyAny>,
        scope: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyEndpoint> {
        let Ok(ip) = host.parse::<IpAddr>() else {
            return Err(PyValueError::new_err(format!("{host:?} is not a numeric IP address")));
        };
        let port = number(port, "a port", u16::MAX.into())? as u16;
        let scope = match scope {
            Some(scope) => number(scope, "a scope", u32::MAX.into())? as u32,
            None => 0,
        };
        let remote = match ip.to_canonical() {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))
            }
            ip => SocketAddr::new(ip, port),
        };
        Ok(PyEndpoint(Endpoint { remote, source: None }))
    }

    #[getter]
    fn host(&self) -> String {
        self.0.remote.ip().to_canonical().to_string()
    }

    #[getter]
    fn port(&self) -> u16 {
        self.0.remote.port()
    }

    #[getter]
    fn scope(&self) -> u32 {
        match self.0.remote {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        }
    }

    fn __getnewargs__(&self) -> (String, u16, u32) {
        (self.host(), self.port(), self.scope())
    }

    #[getter]
    fn route<'py>(
        &self,
        py: Python<'py>,
    ) -> Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, u32, u8)> {
        let packed = |ip| match ip {
            IpAddr::V4(ip) => PyBytes::new(py, &ip.octets()),
            IpAddr::V6(ip) => PyBytes::new(py, &ip.octets()),
        };
        let source = self.0.source?;
        Some((packed(self.0.remote.ip()), packed(source.local), source.interface, source.hold))
    }

    fn __eq__(&self, other: &PyEndpoint) -> bool {
        self.identity() == other.identity()
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.identity().hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("Endpoint({})", self.0.remote)
    }

    fn __str__(&self) -> String {
        self.0.remote.to_string()
    }
}

impl PyEndpoint {
    fn identity(&self) -> (IpAddr, u16, u32) {
        (self.0.remote.ip().to_canonical(), self.port(), self.scope())
    }
}

#[pyclass(name = "Gate", module = "wiresnake._native")]
pub struct PyGate(Gate);

#[pymethods]
impl PyGate {
    #[new]
    fn new() -> PyGate {
        PyGate(Gate::default())
    }

    fn set_identity(&mut self, public: Option<&[u8]>) -> PyResult<()> {
        self.0.set_identity(public.map(|key| exactly(key, "a public key")).transpose()?);
        Ok(())
    }

    fn check<'py>(
        &mut self,
        py: Python<'py>,
        datagram: &[u8],
        source: &Bound<'py, PyEndpoint>,
        now: u64,
        queue_length: usize,
    ) -> Bound<'py, PyAny> {
        match self.0.check(datagram, &source.get().0.remote, now, queue_length) {
            Verdict::Drop | Verdict::Other => PyString::intern(py, "drop").into_any(),
            Verdict::Data => PyString::intern(py, "data").into_any(),
            Verdict::Queue => PyString::intern(py, "queue").into_any(),
            Verdict::Reply(reply) => PyBytes::new(py, &reply).into_any(),
        }
    }
}

#[pyclass(name = "Entropy", module = "wiresnake._native", frozen)]
pub struct PyEntropy;

#[pymethods]
impl PyEntropy {
    #[new]
    fn new() -> PyEntropy {
        PyEntropy
    }

    fn private_key(&self) -> PyPrivateKey {
        PyPrivateKey::generate()
    }

    fn uniform(&self, limit: u64) -> PyResult<u64> {
        let Some(whole) = u64::MAX.checked_div(limit) else {
            return Err(PyValueError::new_err("limit must be at least 1"));
        };
        loop {
            let mut bytes = [0; 8];
            secret::random(&mut bytes);
            let number = u64::from_le_bytes(bytes);
            // Above the last whole multiple, some remainders would be more likely than others.
            if number < whole * limit {
                return Ok(number % limit);
            }
        }
    }
}

#[pyfunction]
fn open_cookie<'py>(
    py: Python<'py>,
    key: &[u8],
    nonce: &[u8],
    sealed: &[u8],
    mac1: &[u8],
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let (key, nonce) = (exactly(key, "a cookie key")?, exactly(nonce, "a cookie nonce")?);
    let cookie = secret::open_cookie(&key, &nonce, sealed, mac1);
    Ok(cookie.map(|cookie| PyBytes::new(py, &cookie)))
}

#[pyfunction]
fn protect_memory() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[pyclass(name = "Plane", module = "wiresnake._native", frozen)]
pub struct PyPlane(Guarded<Plane>);

#[pymethods]
impl PyPlane {
    #[new]
    #[pyo3(signature = (portable=false))]
    fn new(portable: bool) -> PyResult<PyPlane> {
        panics::keep();
        Ok(PyPlane(Guarded::new(Plane::new(portable)?)))
    }

    #[getter]
    fn event_fd(&self) -> PyResult<i64> {
        Ok(self.plane()?.event_fd() as i64)
    }

    #[getter]
    fn timer_fd(&self) -> PyResult<i64> {
        Ok(self.plane()?.timer_fd() as i64)
    }

    fn set_timer(&self, deadline: Option<u64>) -> PyResult<()> {
        Ok(self.plane()?.set_timer(deadline)?)
    }

    fn clear_timer(&self) -> PyResult<()> {
        self.plane().map(|plane| plane.clear_timer())
    }

    #[cfg(target_os = "linux")]
    #[pyo3(signature = (fd, mtu, vnet_header, merge_udp, merge_tcp=true))]
    fn attach_tun(
        &self,
        fd: RawFd,
        mtu: usize,
        vnet_header: bool,
        merge_udp: bool,
        merge_tcp: bool,
    ) -> PyResult<()> {
        let tun = Tun::new(duplicate(fd)?, vnet_header, (merge_tcp, merge_udp))?;
        if self.plane()?.attach_link(Arc::new(tun), mtu)? {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("this plane has a TUN device already"))
    }

    fn attach_stack(&self, stack: &stack::PyStack) -> PyResult<()> {
        let service = stack.service()?;
        if self.plane()?.attach_link(service.link(), service.mtu())? {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("this plane has a device already"))
    }

    fn set_mtu(&self, mtu: usize) -> PyResult<()> {
        self.plane().map(|plane| plane.set_mtu(mtu))
    }

    #[pyo3(signature = (v4, v6, segment=true))]
    fn attach_sockets(
        &self,
        py: Python<'_>,
        v4: Option<RawFd>,
        v6: Option<RawFd>,
        segment: bool,
    ) -> PyResult<()> {
        let plane = self.plane()?;
        let [v4, v6] = [v4, v6].map(|fd| fd.map(duplicate).transpose());
        let [v4, v6] = [v4?, v6?].map(|fd| fd.map(Into::into));
        let mut sockets = Sockets::new(v4, v6, plane.portable())?;
        sockets.segmentation &= segment;
        Ok(py.detach(|| plane.attach_sockets(sockets))?)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let plane = self.plane()?;
        py.detach(|| plane.close());
        Ok(())
    }

    fn set_identity(&self, public: Option<&[u8]>) -> PyResult<()> {
        let public = public.map(|key| exactly(key, "a public key")).transpose()?;
        self.plane().map(|plane| plane.set_identity(public))
    }

    fn take_events(&self) -> PyResult<Vec<(u8, u32)>> {
        Ok(self.plane()?.take_events())
    }

    fn take_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Datagram<'py>>> {
        Ok(self.plane()?.take_message().map(|taken| datagram(py, taken)))
    }

    fn keep_others(&self, kept: bool) -> PyResult<()> {
        self.plane().map(|plane| plane.keep_others(kept))
    }

    fn take_other<'py>(&self, py: Python<'py>) -> PyResult<Option<Datagram<'py>>> {
        Ok(self.plane()?.take_other().map(|taken| datagram(py, taken)))
    }

    fn add_peer(&self) -> PyResult<u32> {
        Ok(self.plane()?.add_peer())
    }

    fn remove_peer(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.remove_peer(&peer))
    }

    fn set_endpoint(&self, peer: u32, endpoint: Option<&Bound<'_, PyEndpoint>>) -> PyResult<()> {
        let endpoint = endpoint.map(|endpoint| endpoint.get().0.clone());
        self.peer(peer)?.1.set_endpoint(endpoint);
        Ok(())
    }

    fn endpoint(&self, peer: u32) -> PyResult<Option<PyEndpoint>> {
        Ok(self.peer(peer)?.1.endpoint().map(PyEndpoint))
    }

    fn take_source(&self, peer: u32) -> PyResult<Option<PyEndpoint>> {
        Ok(self.peer(peer)?.1.take_source().map(PyEndpoint))
    }

    fn hold_source(&self, peer: u32, endpoint: &Bound<'_, PyEndpoint>, hold: u8) -> PyResult<()> {
        self.peer(peer)?.1.hold_source(&endpoint.get().0, hold);
        Ok(())
    }

    fn watch(&self, watched: bool) -> PyResult<()> {
        self.plane().map(|plane| plane.watch(watched))
    }

    #[allow(clippy::type_complexity)] // `Unreported`, as tuples for Python
    fn take_unreported(
        &self,
        peer: u32,
    ) -> PyResult<(Option<PyEndpoint>, Option<(u64, String)>, Option<(u64, i32)>)> {
        let Unreported { roamed_from, rejected, send_error } = self.peer(peer)?.1.take_unreported();
        let roamed_from = roamed_from.map(|remote| PyEndpoint(Endpoint { remote, source: None }));
        let rejected = rejected.map(|(count, source)| (count, source.to_string()));
        Ok((roamed_from, rejected, send_error))
    }

    fn forget_sources(&self, peer: Option<u32>) -> PyResult<()> {
        match peer {
            Some(peer) => self.peer(peer)?.1.forget_source(false),
            None => self.plane()?.forget_sources(),
        }
        Ok(())
    }

    fn allow(&self, peer: u32, prefix: &[u8], length: u8) -> PyResult<()> {
        let (plane, peer) = self.peer(peer)?;
        if plane.allow(&peer, prefix, length) {
            return Ok(());
        }
        let message = "a prefix is 4 or 16 bytes and a length of at most 32 or 128";
        Err(PyValueError::new_err(message))
    }

    fn disallow(&self, prefix: &[u8], length: u8) -> PyResult<()> {
        self.plane().map(|plane| plane.disallow(prefix, length))
    }

    fn reserve(&self, peer: u32) -> PyResult<u32> {
        self.peer(peer).map(|(plane, peer)| plane.reserve(&peer))
    }

    fn release(&self, index: u32) -> PyResult<()> {
        self.plane().map(|plane| plane.release(index))
    }

    fn install(&self, peer: u32, session: &Bound<'_, PySession>) -> PyResult<()> {
        let session = session.get().session()?.clone();
        self.peer(peer).map(|(plane, peer)| plane.install(&peer, session))
    }

    fn expire(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.expire(&peer))
    }

    fn wipe(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.wipe(&peer))
    }

    fn purge(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.purge(&peer))
    }

    fn send(&self, peer: u32, message: &[u8]) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.send(&peer, message))
    }

    fn send_staged(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.send_staged(&peer))
    }

    fn send_keepalive(&self, peer: u32) -> PyResult<()> {
        self.peer(peer).map(|(plane, peer)| plane.send_keepalive(&peer))
    }

    fn count_received(&self, peer: u32, length: usize) -> PyResult<()> {
        self.peer(peer)?.1.count_received(length, false, now());
        Ok(())
    }

    fn stamps(&self, peer: u32) -> PyResult<(u64, u64, u64, u64, u64, u64)> {
        Ok(self.peer(peer)?.1.stamps().into())
    }

    fn disarm(&self, peer: u32, kind: u8, stamp: u64) -> PyResult<bool> {
        Ok(self.peer(peer)?.1.disarm(kind, stamp))
    }

    fn transfer(&self, peer: u32) -> PyResult<(u64, u64)> {
        Ok(self.peer(peer)?.1.transfer())
    }

    fn describe<'py>(
        &self,
        py: Python<'py>,
        peers: Vec<Described<'py>>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let plane = self.plane()?;
        let describe = |(id, public, last_handshake, keepalive, allowed): Described<'py>| {
            let Some(peer) = plane.peer(id) else { return Ok(PyBytes::new(py, &[])) };
            let public = exactly(public.as_bytes(), "a public key")?;
            let mut text = uapi::describe(&peer, &public, last_handshake, keepalive);
            for (prefix, _) in allowed {
                let (address, length): (Bound<'_, PyBytes>, u8) = prefix.extract()?;
                uapi::describe_allowed_ip(&mut text, address.as_bytes(), length);
            }
            Ok(PyBytes::new(py, text.as_bytes()))
        };
        peers.into_iter().map(describe).collect()
    }

    fn describe_state<'py>(
        &self,
        py: Python<'py>,
        peers: Vec<u32>,
        now: u64,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let plane = self.plane()?;
        let describe =
            |id| plane.peer(id).map_or(String::new(), |peer| uapi::describe_state(&peer, now));
        Ok(peers.into_iter().map(|id| PyBytes::new(py, describe(id).as_bytes())).collect())
    }

    fn offloads(&self) -> PyResult<(bool, bool, bool)> {
        self.plane().map(|plane| plane.offloads())
    }

    fn describe_drops(&self, now: u64) -> PyResult<String> {
        self.plane().map(|plane| plane.describe_drops(now))
    }
}

#[pyfunction]
fn cipher() -> PyResult<(&'static str, bool)> {
    match secret::cipher() {
        Ok(Choice { cipher, own_fails }) => Ok((cipher.name(), *own_fails)),
        Err(wrong) => Err(PyValueError::new_err(wrong.as_str())),
    }
}

#[pyfunction]
fn clock() -> u64 {
    now()
}

#[pyfunction]
fn take_panics() -> Vec<String> {
    panics::take()
}

type Datagram<'py> = (Bound<'py, PyBytes>, PyEndpoint);

fn datagram(py: Python<'_>, (bytes, source): (Box<[u8]>, Endpoint)) -> Datagram<'_> {
    (PyBytes::new(py, &bytes), PyEndpoint(source))
}

type Described<'py> = (u32, Bound<'py, PyBytes>, u64, u32, Bound<'py, PyDict>);

impl PyPlane {
    fn plane(&self) -> PyResult<&Plane> {
        self.0.get()
    }

    fn peer(&self, id: u32) -> PyResult<(&Plane, Arc<Peer>)> {
        let plane = self.plane()?;
        let peer = plane.peer(id).ok_or_else(|| PyKeyError::new_err(id))?;
        Ok((plane, peer))
    }
}

impl Drop for PyPlane {
    fn drop(&mut self) {
        if self.0.check().is_ok() {
            self.0.value.close();
        } else {
            self.0.value.abandon();
        }
    }
}

/// A secret and its process. A forked child has a copy of the counter and would use nonces twice.
struct Guarded<T> {
    value: T,
    process: u32,
}

impl<T> Guarded<T> {
    fn new(value: T) -> Guarded<T> {
        Guarded { value, process: process::id() }
    }

    fn get(&self) -> PyResult<&T> {
        self.check()?;
        Ok(&self.value)
    }

    fn get_mut(&mut self) -> PyResult<&mut T> {
        self.check()?;
        Ok(&mut self.value)
    }

    fn check(&self) -> PyResult<()> {
        if self.process == process::id() {
            return Ok(());
        }
        let message = "a key or session crossed a fork; make a new one in this process";
        Err(PyRuntimeError::new_err(message))
    }
}

fn read_key<T>(
    py: Python<'_>,
    text: &PyBuffer<u8>,
    format: Format,
    parse: fn(Format, &[u8]) -> Result<Option<T>, Malformed>,
) -> PyResult<Option<Guarded<T>>> {
    let mut copy = Zeroizing::new([0; 64]);
    let copy = &mut copy[..format.length()];
    let key = if text.len_bytes() == copy.len() {
        text.copy_to_slice(py, copy)?;
        parse(format, copy)
    } else {
        Err(Malformed)
    };
    let key = key.map_err(|Malformed| {
        PyValueError::new_err(match format {
            Format::Hex => "not a key: a key is 64 hexadecimal digits",
            Format::Base64 => "not a key: a key is 44 characters of base64 that end in '='",
        })
    })?;
    Ok(key.map(Guarded::new))
}

fn write_key<T>(
    buffer: &Bound<'_, PyAny>,
    offset: usize,
    format: Format,
    write: fn(&T, Format, &mut [u8]),
    key: &T,
) -> PyResult<usize> {
    let py = buffer.py();
    let mut text = Zeroizing::new([0; 64]);
    let text = &mut text[..format.length()];
    let end = offset.saturating_add(text.len());
    let slice = PySlice::new(py, offset.try_into()?, end.try_into()?, 1);
    let place = PyBuffer::<u8>::get(&PyMemoryView::from(buffer)?.get_item(slice)?)?;
    if place.len_bytes() != text.len() {
        return Err(PyValueError::new_err(format!("a key needs {} bytes of buffer", text.len())));
    }
    write(key, format, text);
    place.copy_from_slice(py, text)?;
    Ok(end)
}

fn exactly<const N: usize>(bytes: &[u8], what: &str) -> PyResult<[u8; N]> {
    let error = |_| PyValueError::new_err(format!("{what} has {N} bytes, not {}", bytes.len()));
    bytes.try_into().map_err(error)
}

fn number(value: &Bound<'_, PyAny>, what: &str, most: u64) -> PyResult<u64> {
    match value.extract::<u64>() {
        Ok(number) if number <= most => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(error),
        _ => Err(PyValueError::new_err(format!("{what} is from 0 to {most}, not {value}"))),
    }
}
