//! One HTTP connection: one request and its answer, within bounds of size and time.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tallymesh_schemas::bounds::{HTTP_HEAD_BYTES, HTTP_HEAD_TIME, HTTP_HEADERS, HTTP_TIME};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use crate::http::answer::Answer;
use crate::places::Place;

/// What a client may send behind its request, and how long it may take to close: if the node closed before it has read that, the
/// system could drop the answer.
const LINGER: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// The protocol with its bounds. One request for each connection: a client that asks again has to queue again, like others.
fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HTTP_HEAD_TIME)
        .max_headers(HTTP_HEADERS)
        .max_header_size(HTTP_HEAD_BYTES)
        .max_buf_size(2 * HTTP_HEAD_BYTES);
    protocol
}

/// Serves one request, which `answer` answers. While the client sends it, or reads the answer, the connection may be ended for
/// another one.
pub(super) async fn serve<S, A>(mut stream: S, place: Place, answer: impl Fn(Request<Incoming>) -> A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = Answer>,
{
    let place = &place;
    place.begin_wait();
    let service = service_fn(|request| {
        place.end_wait();
        let answering = answer(request);
        async move {
            let answer = answering.await;
            place.begin_wait();
            Ok::<_, Infallible>(answer)
        }
    });
    let served = timeout(HTTP_TIME, protocol().serve_connection(TokioIo::new(&mut stream), service)).await;
    match served {
        Ok(Ok(())) => linger(&mut stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended badly"),
        Err(_) => tracing::debug!("an HTTP client took too long"),
    }
}

/// Passes over what the client sends behind its request, until it closes.
async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let (most, patience) = LINGER;
    let passed = async {
        let (mut piece, mut left) = ([0; 4096], most);
        while left > 0
            && let Ok(bytes @ 1..) = stream.read(&mut piece).await
        {
            left = left.saturating_sub(bytes);
        }
    };
    // A client that sends on and on has had its answer.
    let _ = timeout(patience, passed).await;
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::Response;
    use hyper::body::Bytes;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::places::Places;

    const GET: &str = "GET /metrics HTTP/1.1\r\nhost: n1\r\n\r\n";

    /// Serves a connection whose buffers hold `buffer` bytes in each direction, and answers with a body of `body` bytes.
    /// Returns the client's result, and how long the connection lasted.
    async fn served<C: Future>(
        buffer: usize,
        body: usize,
        client: impl FnOnce(DuplexStream) -> C,
    ) -> (C::Output, Duration) {
        let (ours, theirs) = duplex(buffer);
        let place = Places::new(1, Duration::from_secs(60)).take().await;
        let begun = Instant::now();
        let answer = |_| async move { Response::new(Full::new(Bytes::from(vec![b'x'; body]))) };
        let serving = async {
            serve(ours, place, answer).await;
            begun.elapsed()
        };
        let (client, lasted) = tokio::join!(client(theirs), serving);
        (client, lasted)
    }

    /// Sends a text and reads until the node closes.
    async fn ask(text: impl AsRef<[u8]>) -> (String, Duration) {
        let text = text.as_ref().to_vec();
        served(1 << 20, 3, |mut stream| async move {
            // The node may close before it has read everything.
            let _ = stream.write_all(&text).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_and_the_connection_ends() {
        let (answer, lasted) = ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nxxx"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(lasted <= LINGER.1, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_cut_off() {
        for drips in [false, true] {
            let slow = |mut stream: DuplexStream| async move {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.unwrap();
                while drips && stream.write_all(b"n").await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
                stream.read_to_end(&mut Vec::new()).await
            };
            let (_, lasted) = served(1 << 16, 3, slow).await;
            assert!(lasted >= HTTP_HEAD_TIME && lasted <= HTTP_HEAD_TIME + Duration::from_secs(1), "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let deaf = |mut stream: DuplexStream| async move {
            stream.write_all(GET.as_bytes()).await.unwrap();
            sleep(HTTP_TIME * 2).await;
        };
        let (_, lasted) = served(64, 1 << 20, deaf).await;
        assert_eq!(lasted, HTTP_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_head_is_refused() {
        let long = format!("GET / HTTP/1.1\r\nhost: n1\r\nx: {}\r\n\r\n", "a".repeat(HTTP_HEAD_BYTES));
        let fields: String = (0..=HTTP_HEADERS).map(|n| format!("x{n}: 1\r\n")).collect();
        let path = format!("GET /{} HTTP/1.1\r\nhost: n1\r\n\r\n", "a".repeat(HTTP_HEAD_BYTES));
        for head in [long, format!("GET / HTTP/1.1\r\n{fields}\r\n"), path, "a".repeat(1 << 18)] {
            let (answer, lasted) = ask(&head).await;
            let code = answer.split(' ').nth(1).unwrap_or_default();
            assert!(["400", "414", "431"].contains(&code), "{answer}");
            assert!(lasted <= HTTP_HEAD_TIME, "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_of_many_requests_is_answered() {
        let (answer, lasted) = ask(GET.repeat(1000)).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(lasted <= LINGER.1, "{lasted:?}");
    }

    /// The node answers without the body, and passes over only the beginning of it.
    #[tokio::test(start_paused = true)]
    async fn bodies_are_not_read() {
        let endless = |head: &'static str| {
            move |stream: DuplexStream| async move {
                let (mut from, mut to) = tokio::io::split(stream);
                to.write_all(head.as_bytes()).await.unwrap();
                let sending = async {
                    let mut sent = 0;
                    while to.write_all(b"5\r\nhello\r\n").await.is_ok() {
                        sent += 10;
                    }
                    sent
                };
                let mut answer = Vec::new();
                let (sent, _) = tokio::join!(sending, from.read_to_end(&mut answer));
                (sent, String::from_utf8(answer).unwrap())
            }
        };
        for head in [
            "POST /metrics HTTP/1.1\r\nhost: n1\r\ncontent-length: 1000000000\r\n\r\n",
            "POST /metrics HTTP/1.1\r\nhost: n1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET /metrics HTTP/1.1\r\nhost: n1\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            let buffer = 1 << 12;
            let ((sent, answer), lasted) = served(buffer, 3, endless(head)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(sent <= LINGER.0 + 4 * HTTP_HEAD_BYTES + buffer, "{sent}");
            assert!(lasted <= HTTP_TIME, "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_expects_a_word_before_its_body_gets_the_answer() {
        let head = "POST / HTTP/1.1\r\nhost: n1\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
        assert!(ask(head).await.0.starts_with("HTTP/1.1 200"));
    }

    /// A connection may end for another one while the node waits for its client, and not while the node works.
    #[tokio::test(start_paused = true)]
    async fn a_place_is_given_up_only_while_the_client_is_awaited() {
        let places = Places::new(1, Duration::from_millis(250));
        let place = places.take().await;
        let (ours, mut theirs) = duplex(1 << 12);
        let id = place.id();
        let answer = |_| async {
            sleep(Duration::from_secs(1)).await;
            Response::new(Full::new(Bytes::new()))
        };
        let task = tokio::spawn(serve(ours, place, answer));
        Place::served_by(&places, id, task.abort_handle());
        sleep(Duration::from_millis(1)).await;
        theirs.write_all(GET.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        assert!(!places.end_longest_silent(), "the node works");
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"));
        drop(theirs);
        task.await.unwrap();

        let place = places.take().await;
        let id = place.id();
        let (ours, _theirs) = duplex(1 << 12);
        let task = tokio::spawn(serve(ours, place, |_| async { Response::new(Full::new(Bytes::new())) }));
        Place::served_by(&places, id, task.abort_handle());
        sleep(Duration::from_millis(300)).await;
        assert!(places.end_longest_silent() && task.await.unwrap_err().is_cancelled());
        assert_eq!(places.ended(), 1);
    }

    /// Whatever a client sends, the connection ends in time, and each answer is one of HTTP.
    fn ends(bytes: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (answer, lasted) = runtime.block_on(ask(bytes));
        assert!(lasted <= HTTP_TIME + LINGER.1, "{lasted:?}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_refused(bytes: Vec<u8>) {
            ends(&bytes);
        }

        #[test]
        fn requests_with_faults_are_answered_or_refused(
            method in "(GET|HEAD|POST|[A-Z ]{0,8})",
            path in "[ -~]{0,40}",
            fields in prop::collection::vec(("[a-z-]{0,12}", "[ -~]{0,20}"), 0..6),
            end in "(\r\n|\n|)",
            body: Vec<u8>,
        ) {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            ends(&[format!("{method} {path} HTTP/1.1\r\n{fields}{end}").as_bytes(), &body].concat());
        }
    }
}
