//! The replay window (§5.4.6) of RFC 6479, a ring of words that moves on with the newest counter.

/// How far below the greatest counter a counter may be to be accepted.
pub const WINDOW: u64 = BITS - 64;

/// Messages with this counter or a greater one are not accepted: 2^64 - 2^13 - 1.
pub const RECEIVE_LIMIT: u64 = u64::MAX - BITS;

const BITS: u64 = 8192;
const WORDS: usize = (BITS / 64) as usize;

/// The accepted counters. It takes almost no memory before the first one.
#[derive(Default)]
pub struct Window {
    /// One more than the greatest counter; 0 before the first.
    next: u64,
    words: Option<Box<[u64; WORDS]>>,
}

impl Window {
    /// Accepts the counter of an authenticated message; false if it is not new.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LAST: u64 = RECEIVE_LIMIT - 1;

    /// The sequence of other implementations' tests.
    #[test]
    fn c050_c051_edges() {
        let span = WINDOW + 1;
        let steps = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (span, true),
            (span - 1, true),
            (span - 1, false),
            (span - 2, true),
            (2, true),
            (2, false),
            (span + 16, true),
            (3, false),
            (span + 16, false),
            (span * 4, true),
            (span * 4 - (span - 1), true),
            (10, false),
            (span * 4 - span, false),
            (span * 4 - (span + 1), false),
            (span * 4 - (span - 2), true),
            (span * 4 + 1 - span, false),
            (0, false),
            (RECEIVE_LIMIT, false),
            (LAST, true),
            (RECEIVE_LIMIT, false),
            (LAST, false),
            (LAST - 1, true),
            (RECEIVE_LIMIT + 1, false),
            (RECEIVE_LIMIT + 2, false),
            (LAST - 1, false),
            (LAST - 2, true),
            (0, false),
        ];
        let mut window = Window::default();
        for (step, (counter, accepted)) in steps.into_iter().enumerate() {
            assert_eq!(window.accept(counter), accepted, "step {}", step + 1);
        }
    }

    #[test]
    fn c051_runs() {
        let run = |counters: Vec<u64>, then: &[(u64, bool)]| {
            let mut window = Window::default();
            assert!(counters.into_iter().all(|counter| window.accept(counter)));
            for (counter, accepted) in then {
                assert_eq!(window.accept(*counter), *accepted);
            }
        };
        run((1..=WINDOW).collect(), &[(0, true), (0, false)]);
        run((2..=WINDOW + 1).collect(), &[(1, true), (0, false)]);
        run((0..=WINDOW).rev().collect(), &[]);
        run((1..=WINDOW + 1).rev().collect(), &[(0, false)]);
        run((1..=WINDOW).rev().collect(), &[(WINDOW + 1, true), (0, false)]);
        run((1..=WINDOW).rev().collect(), &[(0, true), (WINDOW + 1, true)]);
    }

    #[test]
    fn c051_the_window_is_8128_wide() {
        let mut window = Window::default();
        assert!(window.accept(100_000));
        assert!(window.accept(100_000 - 8128));
        assert!(!window.accept(100_000 - 8129));
    }

    #[test]
    fn nothing_is_allocated_before_the_first() {
        let mut window = Window::default();
        assert!(!window.accept(RECEIVE_LIMIT));
        assert!(window.words.is_none());
        assert!(size_of::<Window>() <= 16);
    }

    #[test]
    fn c051_agrees_with_a_set() {
        let mut state = 1_u64;
        let mut random = move |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..20 {
            let mut window = Window::default();
            let mut seen = HashSet::new();
            let mut greatest = random(1 << 20);
            for _ in 0..20_000 {
                let counter = match random(10) {
                    0 => greatest + random(20_000),
                    1..4 => greatest + random(3),
                    4..6 => greatest.saturating_sub(8100 + random(60)),
                    _ => greatest.saturating_sub(random(9000)),
                };
                let new = !seen.is_empty() && counter + WINDOW < greatest;
                let expected = !new && seen.insert(counter);
                assert_eq!(window.accept(counter), expected, "{counter} after {greatest}");
                if expected && (seen.len() == 1 || counter > greatest) {
                    greatest = counter;
                }
            }
        }
    }
}
