//! What the bucket holds: versions of certificates, receipts of instances, and the documents of the
//! functions.
//!
//! [`store`] reads and writes objects. [`version`] and [`receipt`] say what is in them, and under
//! which keys; [`document`] reads what is versioned JSON.

pub mod document;
#[cfg(test)]
pub(crate) mod fake;
pub mod publish;
pub mod receipt;
pub mod store;
pub mod version;
