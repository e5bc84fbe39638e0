//! `neverlapse pull` on hosts with real nginx servers: what it installs, what it refuses, and what
//! is left when it is killed.

mod bench;
mod damaged;
mod failed;
mod installed;
mod keystore;
mod killed;
mod refused;
mod reported;
mod served;
