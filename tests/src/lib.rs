//! Runs the real thing: the same template on a local AWS, real TLS servers in every state, the
//! built binaries.
//!
//! [`emulator`] is a local AWS and [`stack`] what is deployed to it, [`pki`] makes certificates,
//! [`servers`] serves them, [`dns`] knows where, [`pebble`] issues them, [`certbot`] had them
//! before, a [`farm`] is many names for one of them, [`runtime`] runs a built function that
//! [`fault`] comes between, [`calls`] are what it asked AWS for, [`inbox`] reads what SNS
//! delivered, [`depot`] publishes versions without a CA, a [`webhost`] is an nginx that serves what
//! was installed, a [`cluster`] is some of them behind one name, with `neverlapse pull`, and
//! [`metadata`] is what an instance knows of itself. Everything listens on free loopback ports and
//! ends with the value that started it.

pub mod calls;
pub mod certbot;
pub mod cluster;
pub mod cost;
pub mod depot;
pub mod dns;
pub mod dns_fault;
pub mod emulator;
pub mod farm;
pub mod fault;
pub mod fleet;
pub mod inbox;
pub mod metadata;
pub mod pebble;
pub mod pki;
pub mod process;
pub mod program;
pub mod runtime;
pub mod servers;
pub mod shop;
pub mod stack;
pub mod webhook;
pub mod webhost;
