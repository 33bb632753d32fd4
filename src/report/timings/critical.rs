//! What a run waited for, one part after the other.

use super::Part;

/// Between the end of a part and the begin of what waited for it, in seconds.
const A_BLINK: f64 = 0.005;

/// The parts without which the run would have ended earlier, the first one first: before each, what of its own step ended just
/// then, else what of it goes on around it, else what ended last before it began.
pub(super) fn path(parts: &[Part]) -> Vec<usize> {
    let last = |is_meant: &dyn Fn(usize) -> bool| {
        let meant = (0..parts.len()).filter(|index| is_meant(*index));
        meant.max_by(|left, right| parts[*left].end.total_cmp(&parts[*right].end))
    };
    let mut path = Vec::new();
    let mut next = last(&|_| true);
    while let Some(index) = next {
        path.push(index);
        let begin = parts[index].begin;
        let own = |other: usize| parts[other].step == parts[index].step && parts[other].begin < begin;
        let before = |other: usize| parts[other].end <= begin + A_BLINK && parts[other].begin < begin;
        next = last(&|other| own(other) && before(other) && parts[other].end >= begin - A_BLINK)
            .or_else(|| last(&|other| own(other) && !before(other)))
            .or_else(|| last(&before));
    }
    path.reverse();
    path
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
    fn what_begins_in_a_part_has_waited_for_it() {
        let parts = [
            part("", "ask", 0.0, 0.1),
            part("a", "build", 0.1, 0.500),
            part("a", "bring ahead", 0.4, 0.503),
            part("a", "push", 0.501, 1.0),
        ];
        assert_eq!(path(&parts), [0, 1, 2, 3]);
    }
}
