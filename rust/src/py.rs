//! What Python sees: `_native.pyi` says what it all means.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::process;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice, PyString};
use zeroize::Zeroizing;

use crate::gate::{Gate, Verdict};
use crate::secret::{self, Format, Malformed, PresharedKey, PrivateKey};
use crate::secret::{SharedSecret, SymmetricState};
use crate::session::{HEADER, OVERHEAD, Session};
use crate::udp::Endpoint;

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
    module.add_function(wrap_pyfunction!(open_cookie, module)?)
}

#[pyclass(name = "PrivateKey", module = "wiresnake._native", frozen)]
pub struct PyPrivateKey(Guarded<PrivateKey>);

#[pymethods]
impl PyPrivateKey {
    #[staticmethod]
    fn generate() -> PyPrivateKey {
        PyPrivateKey(Guarded::new(PrivateKey::generate()))
    }

    #[staticmethod]
    fn from_hex(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<PyPrivateKey>> {
        let key = read_key(py, &text, Format::Hex, PrivateKey::parse)?;
        Ok(key.map(|key| PyPrivateKey(Guarded::new(key))))
    }

    #[staticmethod]
    fn from_base64(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<PyPrivateKey>> {
        let key = read_key(py, &text, Format::Base64, PrivateKey::parse)?;
        Ok(key.map(|key| PyPrivateKey(Guarded::new(key))))
    }

    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.0.get()?.public()))
    }

    fn exchange(&self, public: &[u8]) -> PyResult<Option<PySharedSecret>> {
        let result = self.0.get()?.exchange(&exactly(public, "a public key")?);
        Ok(result.map(|result| PySharedSecret(Guarded::new(result))))
    }

    fn write_hex(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let key = self.0.get()?;
        write_key(buffer, offset, Format::Hex, |text| {
            key.write(Format::Hex, text)
        })
    }

    fn write_base64(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let key = self.0.get()?;
        write_key(buffer, offset, Format::Base64, |text| {
            key.write(Format::Base64, text)
        })
    }

    fn __eq__(&self, other: &PyPrivateKey) -> PyResult<bool> {
        Ok(self.0.get()? == other.0.get()?)
    }

    fn __repr__(&self) -> &'static str {
        "PrivateKey(hidden)"
    }

    fn __reduce__(&self) -> PyResult<()> {
        no_copies()
    }
}

#[pyclass(name = "PresharedKey", module = "wiresnake._native", frozen)]
pub struct PyPresharedKey(Guarded<PresharedKey>);

#[pymethods]
impl PyPresharedKey {
    #[staticmethod]
    fn generate() -> PyPresharedKey {
        PyPresharedKey(Guarded::new(PresharedKey::generate()))
    }

    #[staticmethod]
    fn from_hex(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<PyPresharedKey>> {
        let key = read_key(py, &text, Format::Hex, PresharedKey::parse)?;
        Ok(key.map(|key| PyPresharedKey(Guarded::new(key))))
    }

    #[staticmethod]
    fn from_base64(py: Python<'_>, text: PyBuffer<u8>) -> PyResult<Option<PyPresharedKey>> {
        let key = read_key(py, &text, Format::Base64, PresharedKey::parse)?;
        Ok(key.map(|key| PyPresharedKey(Guarded::new(key))))
    }

    fn write_hex(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let key = self.0.get()?;
        write_key(buffer, offset, Format::Hex, |text| {
            key.write(Format::Hex, text)
        })
    }

    fn write_base64(&self, buffer: &Bound<'_, PyAny>, offset: usize) -> PyResult<usize> {
        let key = self.0.get()?;
        write_key(buffer, offset, Format::Base64, |text| {
            key.write(Format::Base64, text)
        })
    }

    fn __eq__(&self, other: &PyPresharedKey) -> PyResult<bool> {
        Ok(self.0.get()? == other.0.get()?)
    }

    fn __repr__(&self) -> &'static str {
        "PresharedKey(hidden)"
    }

    fn __reduce__(&self) -> PyResult<()> {
        no_copies()
    }
}

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

    fn __reduce__(&self) -> PyResult<()> {
        no_copies()
    }
}

/// None inside once split.
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
        Ok(PyBytes::new(
            py,
            &self.state_mut()?.encrypt_and_hash(plaintext),
        ))
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
        let (send, receive) = if initiator {
            (first, second)
        } else {
            (second, first)
        };
        let session = Session::new(
            send,
            receive,
            local_index,
            remote_index,
            initiator,
            created,
            lifetimes,
        );
        Ok(PySession(Guarded::new(Arc::new(session))))
    }

    fn __repr__(&self) -> &'static str {
        "SymmetricState(hidden)"
    }

    fn __reduce__(&self) -> PyResult<()> {
        no_copies()
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
    PyRuntimeError::new_err("this SymmetricState was split; its keys are the session's now")
}

#[pyclass(name = "Session", module = "wiresnake._native", frozen)]
pub struct PySession(Guarded<Arc<Session>>);

impl PySession {
    /// For the plane to install.
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

    fn __reduce__(&self) -> PyResult<()> {
        no_copies()
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
            return Err(PyValueError::new_err(format!(
                "{host:?} is not a numeric IP address"
            )));
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
        Ok(PyEndpoint(Endpoint {
            remote,
            local: None,
        }))
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
        PyGate(Gate::new())
    }

    fn set_identity(&mut self, public: Option<&[u8]>) -> PyResult<()> {
        self.0
            .set_identity(public.map(|key| exactly(key, "a public key")).transpose()?);
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
        match self
            .0
            .check(datagram, &source.get().0.remote, now, queue_length)
        {
            Verdict::Drop => PyString::intern(py, "drop").into_any(),
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
            return Err(PyValueError::new_err(
                "there is no integer from 0 up to, but below, 0",
            ));
        };
        loop {
            let mut bytes = [0; 8];
            secret::random(&mut bytes);
            let number = u64::from_le_bytes(bytes);
            // Beyond the last whole multiple some remainders are more likely than others.
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
    let (key, nonce) = (
        exactly(key, "a cookie key")?,
        exactly(nonce, "a cookie nonce")?,
    );
    let cookie = secret::open_cookie(&key, &nonce, sealed, mac1);
    Ok(cookie.map(|cookie| PyBytes::new(py, &cookie)))
}

/// A secret and the process it belongs to: a forked child has its counter too, and would seal a
/// second message with the same nonce.
struct Guarded<T> {
    value: T,
    process: u32,
}

impl<T> Guarded<T> {
    fn new(value: T) -> Guarded<T> {
        Guarded {
            value,
            process: process::id(),
        }
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

fn no_copies() -> PyResult<()> {
    Err(PyTypeError::new_err("a secret cannot be pickled or copied"))
}

fn read_key<T>(
    py: Python<'_>,
    text: &PyBuffer<u8>,
    format: Format,
    parse: fn(Format, &[u8]) -> Result<Option<T>, Malformed>,
) -> PyResult<Option<T>> {
    let mut copy = Zeroizing::new([0; 64]);
    let copy = &mut copy[..format.length()];
    let key = if text.len_bytes() == copy.len() {
        text.copy_to_slice(py, copy)?;
        parse(format, copy)
    } else {
        Err(Malformed)
    };
    key.map_err(|Malformed| {
        PyValueError::new_err(match format {
            Format::Hex => "not a key: a key is 64 hexadecimal digits",
            Format::Base64 => "not a key: a key is 44 characters of base64 that end in '='",
        })
    })
}

fn write_key(
    buffer: &Bound<'_, PyAny>,
    offset: usize,
    format: Format,
    write: impl FnOnce(&mut [u8]),
) -> PyResult<usize> {
    let py = buffer.py();
    let mut text = Zeroizing::new([0; 64]);
    let text = &mut text[..format.length()];
    let end = offset.saturating_add(text.len());
    let slice = PySlice::new(py, offset.try_into()?, end.try_into()?, 1);
    let place = PyBuffer::<u8>::get(&PyMemoryView::from(buffer)?.get_item(slice)?)?;
    if place.len_bytes() != text.len() {
        return Err(PyValueError::new_err(format!(
            "a key needs {} bytes of buffer",
            text.len()
        )));
    }
    write(text);
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
        _ => Err(PyValueError::new_err(format!(
            "{what} is from 0 to {most}, not {value}"
        ))),
    }
}
