//! CUBIC (RFC 9438), which says how many bytes may be under way. Its first growth ends when round
//! trips become longer (as in RFC 9406), as a queue must then be filling, or with a loss.
//!
//! smoltcp's own controllers are not used: its CUBIC counts bytes where the RFC counts segments and
//! takes a minute to grow back, and its Reno grows by a segment per acknowledgement.

/// Segments at the beginning (RFC 6928).
const INITIAL: f64 = 10.0;
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// Growth per round trip, in segments, of an AIMD flow that is as fast with this `BETA`.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Samples of a round trip before it is compared with the last one, and by how much it is longer.
const SAMPLES: u32 = 8;
const LONGER: std::ops::RangeInclusive<u64> = 4_000_000..=16_000_000;

pub struct Cubic {
    mss: f64,
    window: f64,
    threshold: f64,
    /// The window before the last loss.
    before: f64,
    /// When the present growth began, with the window then and that of an AIMD flow now.
    epoch: Option<(u64, f64, f64)>,
    /// The shortest round trips, in ns, of the last window and of this one, and the samples in it.
    shortest: (u64, u64),
    samples: u32,
}

impl Cubic {
    pub fn new(mss: usize) -> Cubic {
        let mss = mss as f64;
        Cubic {
            mss,
            window: INITIAL * mss,
            threshold: f64::INFINITY,
            before: 0.0,
            epoch: None,
            shortest: (u64::MAX, u64::MAX),
            samples: 0,
        }
    }

    /// Returns the bytes that may be under way.
    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Takes the time, in ns, that a segment and its acknowledgement took.
    pub fn sampled(&mut self, round_trip: u64) {
        let (last, shortest) = &mut self.shortest;
        *shortest = (*shortest).min(round_trip);
        self.samples += 1;
        let longer = (*last / 8).clamp(*LONGER.start(), *LONGER.end());
        let slow = self.samples >= SAMPLES && *shortest >= last.saturating_add(longer);
        if slow && self.window < self.threshold {
            self.threshold = self.window;
        }
    }

    /// Begins another window.
    pub fn next_round(&mut self) {
        self.shortest = (self.shortest.1, u64::MAX);
        self.samples = 0;
    }

    /// Grows the window after `acked` bytes arrived, with `flight` bytes under way before. Times are
    /// in ns.
    pub fn acknowledged(&mut self, acked: usize, flight: usize, now: u64, round_trip: u64) {
        // A window that is not used says nothing about the path.
        if (flight as f64) * 2.0 < self.window {
            self.epoch = None;
            return;
        }
        let acked = acked as f64;
        if self.window < self.threshold {
            self.window += acked;
            return;
        }
        let window = self.window;
        let (begun, first, aimd) = self.epoch.get_or_insert((now, window, window));
        let seconds = now.saturating_sub(*begun) as f64 / 1e9 + round_trip as f64 / 1e9;
        let back = ((self.before - *first).max(0.0) / self.mss / C).cbrt();
        let wanted = C * (seconds - back).powi(3) * self.mss + self.before.max(*first);
        let alpha = if *aimd < self.before { ALPHA } else { 1.0 };
        *aimd += alpha * acked * self.mss / window;
        let wanted = wanted.clamp(window, window * 1.5);
        self.window = (window + (wanted - window) * acked / window).max(*aimd);
    }

    /// Shrinks the window after a loss.
    pub fn lost(&mut self) {
        // A flow that did not get back to its last maximum leaves room for others.
        let shrinking = self.window < self.before;
        self.before = if shrinking { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.threshold = (self.window * BETA).max(2.0 * self.mss);
        self.window = self.threshold;
        self.epoch = None;
    }

    /// Ends a recovery, with `flight` bytes under way. The whole window may not be sent at once
    /// (RFC 6582, 3.2).
    pub fn recovered(&mut self, flight: usize) {
        self.window = self.threshold.min((flight as f64).max(INITIAL * self.mss));
    }

    /// Starts again from one segment, as nothing was acknowledged for long.
    pub fn timed_out(&mut self) {
        self.lost();
        self.window = self.mss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;
    const ROUND_TRIP: u64 = 50_000_000;

    /// Runs round trips, each of which fills the window, from `now` on.
    fn run(cubic: &mut Cubic, now: &mut u64, trips: usize) {
        for _ in 0..trips {
            *now += ROUND_TRIP;
            let window = cubic.window();
            for _ in 0..window / MSS {
                cubic.acknowledged(MSS, window, *now, ROUND_TRIP);
            }
        }
    }

    #[test]
    fn the_window_doubles_until_the_first_loss() {
        let (mut cubic, mut now) = (Cubic::new(MSS), 0);
        assert_eq!(cubic.window(), 10 * MSS);
        run(&mut cubic, &mut now, 5);
        assert_eq!(cubic.window(), 320 * MSS);
        cubic.lost();
        assert_eq!(cubic.window(), 224 * MSS);
    }

    /// RFC 9438, 4.2: K = cbrt((320 - 224) / 0.4) = 6.2 s.
    #[test]
    fn the_window_is_back_after_k_seconds_and_stays_there_for_a_while() {
        let (mut cubic, mut now) = (Cubic::new(MSS), 0);
        run(&mut cubic, &mut now, 5);
        cubic.lost();
        run(&mut cubic, &mut now, 62); // 3.1 s
        let half = cubic.window() / MSS;
        assert!((295..320).contains(&half), "{half}");
        run(&mut cubic, &mut now, 62);
        let whole = cubic.window() / MSS;
        assert!((312..328).contains(&whole), "{whole}");
        run(&mut cubic, &mut now, 124);
        assert!(cubic.window() / MSS > 380, "{}", cubic.window());
    }

    #[test]
    fn longer_round_trips_end_the_first_growth() {
        for (longer, ends) in [(5, false), (7, true)] {
            let (mut cubic, mut now) = (Cubic::new(MSS), 0);
            for trip in [50, 50, 50 + longer] {
                run(&mut cubic, &mut now, 1);
                cubic.next_round();
                (0..SAMPLES).for_each(|_| cubic.sampled(trip * 1_000_000));
            }
            let before = cubic.window();
            run(&mut cubic, &mut now, 1);
            assert_eq!(cubic.window() < before * 2, ends);
        }
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut cubic = Cubic::new(MSS);
        for now in 0..1000 {
            cubic.acknowledged(MSS, MSS, now * ROUND_TRIP, ROUND_TRIP);
        }
        assert_eq!(cubic.window(), 10 * MSS);
    }

    #[test]
    fn after_a_timeout_it_starts_with_one_segment_and_doubles_up_to_the_threshold() {
        let (mut cubic, mut now) = (Cubic::new(MSS), 0);
        run(&mut cubic, &mut now, 3);
        cubic.timed_out();
        assert_eq!(cubic.window(), MSS);
        run(&mut cubic, &mut now, 3);
        assert_eq!(cubic.window(), 8 * MSS);
        run(&mut cubic, &mut now, 5);
        let window = cubic.window();
        assert!((56 * MSS..70 * MSS).contains(&window), "{window}");
    }
}
