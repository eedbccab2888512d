//! Whose datagram is this? Receiver indices, to the peer and the session behind them (§5.4).

use std::collections::HashMap;
use std::sync::Arc;

use crate::peer::Peer;
use crate::secret;
use crate::session::Session;

/// What an index leads to: a handshake in flight has no session yet.
#[derive(Clone)]
pub struct Entry {
    pub peer: Arc<Peer>,
    pub session: Option<Arc<Session>>,
}

#[derive(Default)]
pub struct Table {
    entries: HashMap<u32, Entry>,
}

impl Table {
    /// A random index that nobody uses: a counter would tell how many peers and handshakes
    /// there are.
    pub fn reserve(&mut self, peer: &Arc<Peer>) -> u32 {
        loop {
            let mut bytes = [0; 4];
            secret::random(&mut bytes);
            let index = u32::from_le_bytes(bytes);
            if let std::collections::hash_map::Entry::Vacant(slot) = self.entries.entry(index) {
                slot.insert(Entry { peer: peer.clone(), session: None });
                return index;
            }
        }
    }

    /// Puts the session where its index was reserved: the handshake ends there.
    pub fn install(&mut self, peer: &Arc<Peer>, session: &Arc<Session>) {
        let entry = Entry { peer: peer.clone(), session: Some(session.clone()) };
        self.entries.insert(session.local_index, entry);
    }

    pub fn remove(&mut self, index: u32) {
        self.entries.remove(&index);
    }

    /// Frees an index, unless a session has taken it.
    pub fn release(&mut self, index: u32) {
        if self.entries.get(&index).is_some_and(|entry| entry.session.is_none()) {
            self.entries.remove(&index);
        }
    }

    pub fn lookup(&self, index: u32) -> Option<&Entry> {
        self.entries.get(&index)
    }
}
