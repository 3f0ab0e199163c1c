//! The filter holds for the whole process, so it is alone here.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket, socketpair};

#[test]
fn no_thread_can_make_a_socket_that_is_not_a_unix_socket() {
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let older = std::thread::spawn(move || {
        asked.recv().unwrap();
        tell.send(UdpSocket::bind("127.0.0.1:0").map(drop)).unwrap();
    });
    TcpListener::bind("127.0.0.1:0").unwrap();
    regent_guard::seccomp::refuse_network().unwrap();
    ask.send(()).unwrap();
    let refused = |e: std::io::Error| assert_eq!(e.kind(), std::io::ErrorKind::PermissionDenied, "{e}");
    refused(told.recv().unwrap().unwrap_err());
    older.join().unwrap();
    refused(TcpListener::bind("127.0.0.1:0").unwrap_err());
    refused(TcpListener::bind("[::1]:0").unwrap_err());
    for family in [AddressFamily::NETLINK, AddressFamily::PACKET, AddressFamily::VSOCK, AddressFamily::INET6] {
        assert_eq!(socket(family, SocketType::DGRAM, None).unwrap_err(), rustix::io::Errno::ACCESS);
    }
    let pair = socketpair(AddressFamily::TIPC, SocketType::STREAM, SocketFlags::empty(), None);
    assert_eq!(pair.unwrap_err(), rustix::io::Errno::ACCESS);
    UnixStream::pair().unwrap();
    let child = std::process::Command::new("bash").args(["-c", "echo > /dev/tcp/127.0.0.1/1"]).output().unwrap();
    assert!(!child.status.success());
    assert!(String::from_utf8_lossy(&child.stderr).contains("Permission denied"));
}
