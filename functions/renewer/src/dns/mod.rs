//! The TXT records that prove control of a name: written by Route 53, and looked up as the CA will.

pub(crate) mod change;
pub(crate) mod lookup;
pub(crate) mod record;
