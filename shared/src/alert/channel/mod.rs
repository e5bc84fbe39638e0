//! The channels that alerts go by, each with the form that a message takes there.

pub mod amazon_q;
mod markdown;
pub mod post;
pub mod slack;
pub mod sns;
pub mod webhook;
