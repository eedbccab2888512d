//! The replay window (§5.4.6): RFC 6479, a ring of words in which the newest counters move ahead.

/// Counters this far behind the greatest one are still told apart.
pub const WINDOW: u64 = BITS - 64;

/// No message with this counter or a greater one is accepted: 2^64 - 2^13 - 1.
pub const RECEIVE_LIMIT: u64 = u64::MAX - BITS;

const BITS: u64 = 8192;
const WORDS: usize = (BITS / 64) as usize;

/// Which counters were accepted. It takes no memory to speak of before the first one is.
#[derive(Default)]
pub struct Window {
    /// One more than the greatest counter; 0 before the first.
    next: u64,
    words: Option<Box<[u64; WORDS]>>,
}

impl Window {
    /// Whether the counter is new; if so, it is not any more. Only for authenticated messages.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= RECEIVE_LIMIT || counter + WINDOW + 1 < self.next {
            return false;
        }
        let words = self.words.get_or_insert_with(|| Box::new([0; WORDS]));
        let word = counter / 64;
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / 64;
            for behind in 0..(word - newest).min(WORDS as u64) {
                words[(word - behind) as usize % WORDS] = 0;
            }
            self.next = counter + 1;
        }
        let bit = 1 << (counter % 64);
        let word = &mut words[word as usize % WORDS];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
