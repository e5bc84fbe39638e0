//! A digest: the news in words, as what, where, since when, by when, and what to do next.

pub(crate) mod message;
pub(super) mod room;
mod wording;
mod words;

pub use self::message::{Digest, Entry, Section};
pub use self::words::{closing, digest};
