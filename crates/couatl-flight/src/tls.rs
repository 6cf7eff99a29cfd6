//! TLS: certificates, and when they are read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use couatl_core::{Error, Result};
use parking_lot::RwLock;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The files of a server's certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates: without one of them, nobody is let in.
    pub client_authorities: Option<PathBuf>,
}

/// The certificates with which new connections begin.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `invalid-argument` where one cannot be read, or they do not go together.
    pub fn read(files: TlsFiles) -> Result<Self> {
        let config = RwLock::new(Arc::new(config(&files)?));
        Ok(Self { files, config })
    }

    /// Reads the files again, for the connections that begin from now on.
    ///
    /// # Errors
    /// As in [`read`](Self::read); then those of before stay.
    pub fn reload(&self) -> Result<()> {
        *self.config.write() = Arc::new(config(&self.files)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read()).into()
    }
}

fn config(files: &TlsFiles) -> Result<ServerConfig> {
    let certificates = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unread(&files.key, error))?;
    let provider = Arc::new(default_provider());
    let unfit = |error: &dyn std::fmt::Display| Error::invalid_argument(format!("cannot serve TLS: {error}"));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(&error))?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|error| unread(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unfit(&error))?)
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| unfit(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unread(path, error))?;
    if certificates.is_empty() {
        return Err(unread(path, "it has no certificate"));
    }
    Ok(certificates)
}

fn unread(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("cannot read '{}', expected PEM: {error}", path.display()))
}
