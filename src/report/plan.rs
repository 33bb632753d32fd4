//! `--dry-run`: the plan as a table.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::result;
use crate::plan::{Plan, Step, Work};

pub fn plan(plan: &Plan) {
    for channel in &plan.channels {
        result(format_args!("channel {channel} of {}, prefix {}", plan.registry, channel.prefix()));
    }
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_header(["", "image", "variant", "reference", "from", "then"]);
    for (index, step) in plan.steps.iter().enumerate() {
        table.add_row([
            (index + 1).to_string(),
            step.image.to_string(),
            step.variant.to_string(),
            step.reference.to_string(),
            from(plan, step),
            if step.publish { "pushed" } else { "kept in the daemon" }.to_owned(),
        ]);
    }
    result(table);
}

fn from(plan: &Plan, step: &Step) -> String {
    match &step.work {
        Work::AddUtilities { normal, .. } => format!("{} + utilities", plan.steps[*normal].label()),
        Work::Build { external, .. } => {
            let siblings = step.needs().into_iter().map(|need| plan.steps[need].label());
            let names: Vec<_> = siblings
                .chain(external.iter().map(|name| crate::problem::printable(name)))
                .collect();
            if names.is_empty() { "scratch".to_owned() } else { names.join(", ") }
        }
    }
}
