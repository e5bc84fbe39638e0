//! Alerts: what people hear of a run, by which channel, and what they heard before.
//!
//! An [`Incident`] is one thing that is wrong at one place. [`decide`] compares what a run found
//! with the [`Memory`] of earlier runs: an incident is firing until a run shows that it is
//! resolved, people are notified when it appears, reminded while it lasts, and many with one cause
//! inhibit each other in favour of one. The result is the [`News`], and the [`State`] to remember
//! once people have heard it.
//!
//! [`digest()`] puts the news into words; [`compose()`] does both, whatever is in the report. Each
//! channel gives these its own form and hands them over: [`sns`] to mail, phones and programs,
//! [`amazon_q`] by way of SNS to chats, [`slack`] to a webhook.

pub mod channel;
mod compose;
mod decide;
mod digest;
mod fate;
mod found;
mod incident;
mod inhibit;
mod memory;
mod news;
mod run_index;
pub mod sample;
mod sender;
mod watchlist;

pub use self::channel::sns::Topic;
pub use self::channel::{amazon_q, slack, sns, webhook};
pub use self::compose::{Composed, compose};
pub use self::decide::{Run, decide};
pub use self::digest::{Digest, Entry, Section, closing, digest};
pub use self::incident::{Absence, CONFIRMED, Flapping, Incident, Notified, Outage, Place};
pub use self::memory::{KEY, Memory, SCHEMA, State};
pub use self::news::{Change, News, Notice};
pub use self::sender::Sender;
pub use self::watchlist::Watchlist;
