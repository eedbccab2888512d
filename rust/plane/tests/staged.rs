//! What waits for sessions, all peers together. In a process of its own: the sum is the process's.

use plane::peer::{MAX_STAGED, MAX_STAGED_TOGETHER, Sessions};

fn unstage_all(sessions: &mut Sessions) -> Vec<usize> {
    std::iter::from_fn(|| sessions.unstage()).map(|staged| staged.frame.len()).collect()
}

#[test]
fn peers_share_what_may_be_staged_and_none_goes_without() {
    let mut full: Vec<_> =
        (0..MAX_STAGED_TOGETHER / MAX_STAGED).map(|_| Sessions::default()).collect();
    let mut late = Sessions::default();
    for round in 0..3 {
        for sessions in &mut full {
            for _ in 0..MAX_STAGED {
                sessions.stage(&[0; 1430], 1);
            }
        }

        // Nothing is left: the newest packet of each peer, or a keepalive for a super-packet.
        late.stage(&[0; 1430], 1);
        late.stage(&[0; 100], 1);
        assert_eq!(unstage_all(&mut late), [100]);
        late.stage(&[0; 1430], 1);
        late.stage(&[0; 64_000], 45);
        let keepalive = late.unstage().unwrap();
        late.restage(keepalive);
        assert_eq!(unstage_all(&mut late), [0]);
        full[0].stage(&[0; 200], 1);
        assert_eq!(unstage_all(&mut full[0]), [200]);

        // And all of it comes back.
        late.stage(&[0; 64_000], 45);
        late.stage(&[0; 1430], 1);
        assert_eq!(unstage_all(&mut late), [64_000, 1430]);
        for sessions in &mut full {
            match round {
                0 => sessions.purge(),
                _ => drop(unstage_all(sessions)),
            }
        }
    }
}
