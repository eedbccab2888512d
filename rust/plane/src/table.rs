//! Finds the peer and the session of a receiver index (§5.4).

use std::collections::HashMap;
use std::sync::Arc;

use crate::peer::Peer;
use crate::secret;
use crate::session::Session;

/// The peer and the session of an index. A pending handshake has no session yet.
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
    /// Returns a random unused index. A counter would reveal the number of peers and handshakes.
    pub fn reserve(&mut self, peer: &Arc<Peer>) -> u32 {
        self.reserve_from(peer, || {
            let mut bytes = [0; 4];
            secret::random(&mut bytes);
            u32::from_le_bytes(bytes)
        })
    }

    fn reserve_from(&mut self, peer: &Arc<Peer>, mut draw: impl FnMut() -> u32) -> u32 {
        loop {
            let index = draw();
            if let std::collections::hash_map::Entry::Vacant(slot) = self.entries.entry(index) {
                slot.insert(Entry { peer: peer.clone(), session: None });
                return index;
            }
        }
    }

    /// Installs the session at its reserved index, which ends the handshake.
    pub fn install(&mut self, peer: &Arc<Peer>, session: &Arc<Session>) {
        let entry = Entry { peer: peer.clone(), session: Some(session.clone()) };
        self.entries.insert(session.local_index, entry);
    }

    pub fn remove(&mut self, index: u32) {
        self.entries.remove(&index);
    }

    /// Frees an index, unless a session uses it.
    pub fn release(&mut self, index: u32) {
        if self.entries.get(&index).is_some_and(|entry| entry.session.is_none()) {
            self.entries.remove(&index);
        }
    }

    pub fn lookup(&self, index: u32) -> Option<&Entry> {
        self.entries.get(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::AeadKey;

    #[test]
    fn c015_an_index_in_use_is_drawn_again() {
        let peer = Arc::new(Peer::new(1, &Arc::default()));
        let mut table = Table::default();
        let mut draws = [7, 7, 7, 0, 7, 0, u32::MAX, 7].into_iter();
        let mut reserve = |table: &mut Table| table.reserve_from(&peer, || draws.next().unwrap());
        assert_eq!(reserve(&mut table), 7);
        let key = || AeadKey::new(&[7; 32]);
        let session = Session::new(key(), key(), 7, 9, true, 0, [u64::MAX; 3]);
        table.install(&peer, &Arc::new(session));
        table.release(7);
        assert_eq!(reserve(&mut table), 0);
        assert_eq!(reserve(&mut table), u32::MAX);
        assert!(table.lookup(7).is_some_and(|entry| entry.session.is_some()));
        table.remove(7);
        assert_eq!(reserve(&mut table), 7);
        assert_eq!(draws.next(), None);
    }
}
