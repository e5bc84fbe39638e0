//! ACME (RFC 8555, RFC 9773): one CA's server, our account there, and an order from its identifiers to its chain.

pub(crate) mod account;
pub(crate) mod http;
pub(crate) mod jws;
pub(crate) mod order;
pub(crate) mod renewal_info;
