//! The channels that alerts go by, each with the form that a message takes there.

pub mod amazon_q;
mod markdown;
pub mod slack;
pub mod sns;
