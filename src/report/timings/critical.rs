//! What a run waited for, one part after the other.

use super::Part;

/// Between the end of a part and the begin of what waited for it, in seconds.
const A_BLINK: f64 = 0.005;

/// The parts without which the run would have ended earlier, the first one first: before each, what ended last before it
/// began, of its own step if that was just then.
pub(super) fn path(parts: &[Part]) -> Vec<usize> {
    let mut path = Vec::new();
    let mut next = last(parts, |_| true);
    while let Some(index) = next {
        path.push(index);
        let begin = parts[index].begin;
        let before = |other: usize| other != index && parts[other].end <= begin + A_BLINK && parts[other].begin < begin;
        let own = |other: usize| before(other) && parts[other].step == parts[index].step && parts[other].end >= begin - A_BLINK;
        next = last(parts, own).or_else(|| last(parts, before));
    }
    path.reverse();
    path
}

/// What ended last; of what ended at once, what began first, for the rest may be parts of it.
fn last(parts: &[Part], is_meant: impl Fn(usize) -> bool) -> Option<usize> {
    let meant = || (0..parts.len()).filter(|index| is_meant(*index));
    let end = meant().map(|index| parts[index].end).max_by(f64::total_cmp)?;
    let at_once = meant().filter(|index| parts[*index].end >= end - A_BLINK);
    at_once.min_by(|left, right| parts[*left].begin.total_cmp(&parts[*right].begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(step: &str, name: &str, begin: f64, end: f64) -> Part {
        Part {
            name: name.to_owned(),
            step: step.to_owned(),
            begin,
            end,
        }
    }

    #[test]
    fn it_runs_through_what_others_waited_for() {
        let parts = [
            part("", "ask", 0.0, 0.1),
            part("a", "build", 0.1, 0.5),
            part("b", "build", 0.1, 0.9),
            part("a", "push", 0.5, 0.8),
            part("b", "push", 0.9, 1.0),
            part("", "flip", 1.0, 1.1),
        ];
        assert_eq!(path(&parts), [0, 2, 4, 5]);
        assert!(path(&[]).is_empty());
    }

    #[test]
    fn of_what_ended_at_once_it_takes_its_own_step() {
        let parts = [
            part("a", "build", 0.0, 0.500),
            part("b", "build", 0.0, 0.501),
            part("a", "push", 0.501, 1.0),
        ];
        assert_eq!(path(&parts), [0, 2]);
    }

    #[test]
    fn what_goes_on_in_a_part_does_not_stand_for_it() {
        let parts = [
            part("", "ask", 0.0, 0.1),
            part("a", "build", 0.1, 0.500),
            part("a", "bring ahead", 0.4, 0.503),
            part("a", "push", 0.501, 1.0),
        ];
        assert_eq!(path(&parts), [0, 1, 3]);
    }
}
