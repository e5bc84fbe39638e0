//! What the renewer keeps in the bucket: the lease on a certificate with the attempt under way, and published versions.

pub(crate) mod lease;
pub(crate) mod publish;
