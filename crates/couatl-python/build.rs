//! Tells the crate which Python it is built for: where values lie in their objects depends on the version.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
