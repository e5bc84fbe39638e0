//! neverlapse looks at TLS endpoints the way a client does and says what is wrong before anyone notices.
//!
//! One run goes one way. An [`inventory`] (or a list of names) becomes [`probe::Target`]s; for each of them
//! [`resolve`] finds every address, [`starttls`] upgrades where the protocol wants it, [`tls`] makes the handshake and
//! takes the chain whatever it is ([`legacy`] reads it from servers too old for that), [`chain`] and [`crl`] judge it
//! offline into [`finding`]s, and [`report`] collects them. [`alert`] says what matters in words, [`page`] shows all of it, and a
//! [`metric`] counts it; [`store`] reads and writes the bucket.
//!
//! What is renewed is in the bucket too: [`renewal`] decides when, by a [`request`]; a [`version`] is what came of it, and a
//! [`receipt`] what an instance did with that; [`delivery`] puts all of it beside what is on the wire.

pub mod alert;
pub mod chain;
pub mod client;
pub mod crl;
pub mod delivery;
pub mod endpoint;
pub mod finding;
pub mod inventory;
pub mod legacy;
pub mod metric;
pub mod page;
pub mod probe;
pub mod receipt;
pub mod renewal;
pub mod report;
pub mod request;
pub mod resolve;
pub mod roots;
pub mod starttls;
pub mod store;
pub mod text;
pub mod timestamp;
pub mod tls;
pub mod version;
