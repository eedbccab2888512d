//! Keeps the places of panics for Python to report, as nobody may be reading stderr.
//!
//! A panic costs the packets in hand, not the device. Whatever it left half done is reset by
//! `plane.rs`: the batch of Python's calls, and the state of a thread by restarting it.

use std::panic::{PanicHookInfo, set_hook};
use std::sync::{Mutex, Once};

use crate::lock::lock;

/// The most places that are reported. A place that panics a thousand times is reported once.
const PLACES: usize = 64;
/// The longest message. It may hold numbers and names of things; secrets have no Debug.
const LONGEST: usize = 200;

/// How often a thread may fail within a minute before the device ends.
const LIMIT: usize = 5;
const MINUTE: u64 = 60_000_000_000;

#[derive(Default)]
struct Seen {
    places: Vec<String>,
    untold: Vec<String>,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { places: Vec::new(), untold: Vec::new() });

/// Keeps the places of panics from now on, instead of printing them.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_hook(Box::new(note)));
}

/// Returns the panics that were not reported yet, a line each.
pub fn take() -> Vec<String> {
    std::mem::take(&mut lock(&SEEN).untold)
}

/// Returns the message of the panic, as `payload_as_str` of Rust 1.91 does.
fn text<'a>(info: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let (payload, literal) = (info.payload(), info.payload().downcast_ref::<&str>());
    literal.copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or("somewhere".into(), |place| place.to_string());
    let message = text(info).and_then(|text| text.lines().next()).unwrap_or("");
    let message: String = message.chars().take(LONGEST).collect();
    let mut seen = lock(&SEEN);
    if seen.places.len() < PLACES && !seen.places.contains(&place) {
        seen.untold.push(format!("{place}: {message}"));
        seen.places.push(place);
    }
}

/// How often a thread has failed within the last minute.
#[derive(Default)]
pub struct Failures([Option<u64>; LIMIT]);

impl Failures {
    /// Counts another failure; false if there were too many within a minute.
    pub fn bearable(&mut self, now: u64) -> bool {
        let [oldest, ..] = self.0;
        self.0.rotate_left(1);
        self.0[LIMIT - 1] = Some(now);
        oldest.is_none_or(|oldest| now.saturating_sub(oldest) >= MINUTE)
    }
}

/// Panics in tests, for a packet that ends with the place's name.
#[cfg(test)]
#[track_caller]
pub fn plant(place: &str, packet: &[u8]) {
    assert!(!packet.ends_with(place.as_bytes()), "planted in {place}");
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Keeps planted panics, and prints all others as usual.
    pub fn keep_planted() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let print = std::panic::take_hook();
            set_hook(Box::new(move |info| match text(info) {
                Some(text) if text.starts_with("planted") => note(info),
                _ => print(info),
            }));
        });
    }

    #[test]
    fn a_place_is_reported_once_with_the_first_line_of_what_it_says() {
        keep_planted();
        for _ in 0..3 {
            let _ = std::panic::catch_unwind(|| panic!("planted here\nand more {}", 7));
        }
        let said: Vec<_> = take().into_iter().filter(|line| line.contains("here")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("plane/src/panics.rs:") && said[0].ends_with(": planted here"));
        assert!(take().iter().all(|line| !line.contains("here")));
    }

    #[test]
    fn a_thread_may_fail_five_times_a_minute() {
        let mut failures = Failures::default();
        let mut answers = |times: &[u64]| {
            times.iter().map(|time| failures.bearable(time * 1_000_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(answers(&[0, 1, 2, 3, 4]), [true; 5]);
        assert_eq!(answers(&[60, 61, 61]), [true, true, false]);
        assert_eq!(answers(&[200]), [true]);
    }
}
