//! Counts of drops, for the operator: how often something was dropped, and the last time. Only
//! packets that are lost are counted here, so this costs the others nothing.

use std::net::{IpAddr, SocketAddr};

/// The shortest time between two reports of the same kind of drop, in ns.
const QUIET: u64 = 1_000_000_000;

/// How often something happened, and the last time. It never grows, even in a flood.
#[derive(Clone, Copy)]
pub struct DropCounter<T> {
    pub count: u64,
    /// What, and when.
    pub last: Option<(T, u64)>,
    quiet_until: u64,
    untold: bool,
}

impl<T> Default for DropCounter<T> {
    fn default() -> DropCounter<T> {
        DropCounter { count: 0, last: None, quiet_until: 0, untold: false }
    }
}

impl<T: Copy> DropCounter<T> {
    /// Counts one more; true if it must be reported to a subscriber now.
    pub fn add(&mut self, what: T, now: u64, watched: bool) -> bool {
        self.count += 1;
        self.last = Some((what, now));
        let tell = watched && now >= self.quiet_until;
        if tell {
            self.quiet_until = now + QUIET;
            self.untold = true;
        }
        tell
    }

    /// Returns the count and the last one, unless they were taken since `add` returned true.
    fn take(&mut self) -> Option<(u64, T)> {
        let untold = std::mem::take(&mut self.untold);
        self.last.filter(|_| untold).map(|(what, _)| (self.count, what))
    }
}

/// The drops of a peer, made at the first drop, as most peers have none.
#[derive(Default)]
pub struct Drops {
    /// Inner sources that are not among the peer's allowed IPs.
    pub rejected: DropCounter<IpAddr>,
    /// Sends that failed, by errno.
    pub send_error: DropCounter<i32>,
    /// The endpoint before it moved, if that was not reported to a subscriber yet.
    pub roamed_from: Option<SocketAddr>,
}

/// News for a subscriber: the previous endpoint, rejected sources, failed sends.
#[derive(Debug, Default, PartialEq)]
pub struct Unreported {
    pub roamed_from: Option<SocketAddr>,
    pub rejected: Option<(u64, IpAddr)>,
    pub send_error: Option<(u64, i32)>,
}

impl Drops {
    pub fn take_unreported(&mut self) -> Unreported {
        Unreported {
            roamed_from: self.roamed_from.take(),
            rejected: self.rejected.take(),
            send_error: self.send_error.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_told_once_a_second() {
        let mut counter = DropCounter::default();
        let told: Vec<bool> = [0, 1, QUIET - 1, QUIET, QUIET + 1, 3 * QUIET]
            .map(|now| counter.add(now as i32, now, true))
            .into();
        assert_eq!(told, [true, false, false, true, false, true]);
        assert_eq!((counter.count, counter.last), (6, Some((3_000_000_000u64 as i32, 3 * QUIET))));
        assert_eq!(counter.take().map(|(count, _)| count), Some(6));
        assert_eq!(counter.take(), None);
    }

    #[test]
    fn nobody_is_told_late_of_what_happened_before_he_came() {
        let mut drops = Drops::default();
        assert!(!drops.send_error.add(1, 5, false));
        assert!(drops.rejected.add([10, 0, 0, 1].into(), 5, true));
        let told =
            Unreported { rejected: Some((1, [10, 0, 0, 1].into())), ..Unreported::default() };
        assert_eq!(drops.take_unreported(), told);
        assert_eq!(drops.take_unreported(), Unreported::default());
    }
}
