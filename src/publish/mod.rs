//! A channel as a thing with a state: what is in it, and how it becomes something else, all or nothing.

mod ask;
mod channel;
mod clean;
mod commit;
mod copy;
mod flip;
mod history;
mod list;
mod moves;
mod repair;

pub use ask::{Answers, Known, Offer, Standing, ask, look_up};
pub use channel::{
    Channel, IN_PROGRESS, State, Stored, configuration, copy_image, keep, keep_found, manifest, record_tag, staged_tag, tag,
};
pub use clean::{Garbage, Swept, everything, garbage, sweep};
pub use commit::commit;
pub use copy::copy;
pub use flip::Latest;
pub use history::{Difference, Held, back_to, differences, held, history, missing, record_of, strayed};
pub use list::{Listed, list};
pub use moves::Change;
pub use repair::{intent, is_gone, settled};
