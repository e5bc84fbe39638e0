//! neverlapse probes TLS endpoints the way a client does, and reports what is wrong before anyone
//! notices.
//!
//! A run goes one way. An [`inventory`], or a list of [`endpoint`]s, becomes [`probe::Target`]s.
//! For each of them [`resolve`] finds every address, and [`probe`] connects, upgrades
//! ([`probe::starttls`]), makes the handshake and takes the chain whatever it is ([`probe::tls`],
//! or [`probe::legacy`] for servers that are too old for that). [`chain`] and [`crl`] judge each
//! [`certificate`] offline into [`finding`]s. What one address answered is an [`observation`]; the
//! [`report`] collects them and shows them as a page ([`report::page`]). [`alert`] decides what is
//! news and puts it into words, and a [`metric`] counts it.
//!
//! Renewal begins with a [`renewal::request`]: [`renewal`] decides when a certificate is due. The
//! [`bucket`] holds what came of it, a [`bucket::version`], and what each instance did with that, a
//! [`bucket::receipt`]. [`delivery`] compares both with what the endpoints serve. [`dns`] knows
//! where control of a name is proved, and what keeps a CA from issuing for it.
//!
//! What strangers write is judged in units that cost each other nothing: [`isolation`].

pub mod alert;
pub mod aws;
pub mod bucket;
pub mod certificate;
pub mod chain;
pub mod crl;
pub mod delivery;
mod der;
mod distinguished_name;
pub mod dns;
pub mod ehlo;
pub mod endpoint;
pub mod environment;
pub mod finding;
pub mod http;
pub mod inventory;
pub mod isolation;
pub mod metric;
pub mod name;
pub mod observation;
pub mod pem;
pub mod probe;
pub mod renewal;
pub mod report;
pub mod resolve;
pub mod text;
pub mod timestamp;
