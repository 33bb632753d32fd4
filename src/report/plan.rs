//! `--dry-run`: the plan as a table.

use super::result;
use super::table::table;
use crate::channel::ChannelName;
use crate::plan::{Plan, Step, Work};
use crate::problem::printable;

pub fn plan(plan: &Plan) {
    plan.channels.iter().for_each(|name| channel(plan, name, None));
    result("");
    let cells = plan.steps.iter().enumerate().map(|(index, step)| {
        let then = if step.publish { "pushed" } else { "built only" };
        let number = (index + 1).to_string();
        [
            number,
            step.image.to_string(),
            step.variant.to_string(),
            step.reference.to_string(),
            from(plan, step),
            then.to_owned(),
        ]
    });
    result(table(["", "image", "variant", "reference", "from", "then"], cells));
}

pub(super) fn channel(plan: &Plan, channel: &ChannelName, record: Option<u64>) {
    let record = record.map(|sequence| format!(", record {sequence}")).unwrap_or_default();
    result(format_args!(
        "channel {channel} of {}{record}, prefix {}",
        plan.registry,
        channel.prefix()
    ));
}

fn from(plan: &Plan, step: &Step) -> String {
    match &step.work {
        Work::AddUtilities { normal, .. } => format!("{} + utilities", plan.steps[*normal].label()),
        Work::Build { external, .. } => {
            let siblings = step.needs().into_iter().map(|need| plan.steps[need].label());
            let names: Vec<_> = siblings.chain(external.iter().map(|name| printable(name))).collect();
            if names.is_empty() { "scratch".to_owned() } else { names.join(", ") }
        }
    }
}
