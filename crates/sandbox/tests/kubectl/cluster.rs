//! A sandbox that kubectl is pointed at.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kaudit_event::{Text, UserInfo};
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use kaudit_sandbox::Sandbox;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_util::sync::CancellationToken;

static SCENARIOS: AtomicU32 = AtomicU32::new(0);

/// A running sandbox and a kubeconfig for it.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    stop: CancellationToken,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Cluster {
    /// `None` where there is no kubectl.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .is_err()
        {
            println!("kubectl is not on the path: nothing is tested");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let issuer = Authority::new();
        let authority = issuer.pem.clone();
        let (certificate, key) = issuer.sign("server", "", &["127.0.0.1", "localhost"]);
        let (client, client_key) = issuer.sign("carla", "viewers", &[]);
        std::fs::write(folder.path().join("carla.crt"), client).unwrap();
        std::fs::write(folder.path().join("carla.key"), client_key).unwrap();
        let clients = ClientCertificates::Asked(authority.clone().into_bytes());
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &clients).unwrap();
        let sandbox = Sandbox::builder()
            .certificate_authority(authority.clone())
            .client_authority(authority.as_bytes())
            .unwrap()
            .tokens(["admin", "viewer", "nobody"].map(token))
            .build();
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
                let listener = Listener::bind(ListenConfig::https(address, tls)).await.unwrap();
                sender.send(listener.local_addr()).unwrap();
                sandbox.serve(listener, stopped, Duration::from_secs(1)).await;
            });
        });
        let address = receiver.recv().unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority).unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: admin\n\
             clusters: [{{name: sandbox, cluster: {{server: 'https://{address}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: admin, user: {{token: admin-token}}}}, {{name: viewer, user: {{token: viewer-token}}}}, \
             {{name: nobody, user: {{token: nobody-token}}}}, \
             {{name: carla, user: {{client-certificate: carla.crt, client-key: carla.key}}}}]\n\
             contexts: [{{name: admin, context: {{cluster: sandbox, user: admin}}}}, \
             {{name: viewer, context: {{cluster: sandbox, user: viewer}}}}, \
             {{name: nobody, context: {{cluster: sandbox, user: nobody}}}}, \
             {{name: carla, context: {{cluster: sandbox, user: carla}}}}]\n"
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        SCENARIOS.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            folder,
            stop,
            server: Some(server),
        })
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.path("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.path("cache"))
            .args(arguments)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs kubectl, which must succeed; gives its standard output.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}\n{stdout}\n{stderr}"
        );
        stdout
    }

    /// Runs kubectl, which must fail; gives its standard error.
    #[track_caller]
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} succeeded\n{stdout}\n{stderr}"
        );
        stderr
    }

    /// Runs kubectl with standard input.
    #[track_caller]
    pub(crate) fn pipe(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            let joined = server.join();
            assert!(joined.is_ok() || std::thread::panicking());
        }
        println!("kubectl scenarios run: {}", SCENARIOS.load(Ordering::Relaxed));
    }
}

/// `<name>-token` is the user of that name; `admin` may do everything.
pub(crate) fn token(name: &'static str) -> (String, UserInfo) {
    let groups = match name {
        "admin" => vec![Text::from_static("system:masters")],
        "viewer" => vec![Text::from_static("viewers")],
        _ => Vec::new(),
    };
    let user = UserInfo {
        username: Text::from_static(name),
        groups: Some(groups),
        ..UserInfo::default()
    };
    (format!("{name}-token"), user)
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "sandbox-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A certificate and its key.
    pub(crate) fn sign(&self, name: &str, organization: &str, hosts: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}
