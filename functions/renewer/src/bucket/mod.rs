//! What the renewer keeps in the bucket: the lease on a certificate with the attempt under way, its
//! versions, and trouble with issuers.

pub(crate) mod attempt;
pub(crate) mod issued;
pub(crate) mod lease;
pub(crate) mod publish;
pub(crate) mod trouble;
pub(crate) mod version;
