//! ACME (RFC 8555, RFC 9773): one CA's server, our account there, and an order from its identifiers
//! to its chain.

pub(crate) mod account;
pub(crate) mod alternate;
mod directory;
pub(crate) mod http;
mod jws;
pub(crate) mod order;
pub(crate) mod problem;
pub(crate) mod renewal_info;
