//! Answers requests. A request is a method, a path and its fields; no body is ever read.

use std::fmt::Write;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::http::accept::preferred;
use crate::http::observer::{NoAnswer, Observer};
use crate::http::requests::{Requests, Route};

/// The methods of every route.
const METHODS: &str = "GET, HEAD";

/// The type of answers for people.
const TEXT: &str = "text/plain; charset=utf-8";

/// What a request is answered with.
pub(super) type Answer = Response<Full<Bytes>>;

/// Answers the requests of all connections.
#[derive(Debug)]
pub(super) struct Answerer {
    pub(super) observer: Observer,
    pub(super) requests: Arc<Requests>,
}

impl Answerer {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let route = Route::of(request.uri().path());
        let answer = match (route, request.method()) {
            (Route::None, _) => not_found(),
            (_, &Method::GET | &Method::HEAD) => self.get(route, request.headers()).await,
            _ => not_allowed(),
        };
        self.requests.note(route, answer.status());
        answer
    }

    async fn get(&self, route: Route, headers: &HeaderMap) -> Answer {
        let answer = match route {
            Route::Metrics => self.metrics(headers).await,
            Route::Health => self.observer.status().await.map(|_| text(StatusCode::OK, "ok\n")),
            Route::Readiness => self.readiness().await,
            Route::None => Ok(not_found()),
        };
        answer.unwrap_or_else(|NoAnswer| {
            text(StatusCode::SERVICE_UNAVAILABLE, "the node's driver does not answer, or the node is leaving\n")
        })
    }

    async fn metrics(&self, headers: &HeaderMap) -> Result<Answer, NoAnswer> {
        let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|field| field.to_str().ok());
        let format = preferred(accepted);
        let mut answer = of(StatusCode::OK, self.observer.text(format).await?, format.content_type());
        answer.headers_mut().insert(hyper::header::VARY, HeaderValue::from_static("Accept"));
        Ok(answer)
    }

    async fn readiness(&self) -> Result<Answer, NoAnswer> {
        let missing = self.observer.missing().await?.lines();
        if missing.is_empty() {
            return Ok(text(StatusCode::OK, "ready\n"));
        }
        Ok(text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n"))))
    }
}

fn of(code: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    of(code, body, TEXT)
}

fn not_found() -> Answer {
    let mut body = "there is nothing at this path; the routes are\n".to_owned();
    for (route, about) in Route::ALL {
        // Writing into a String cannot fail.
        let _ = writeln!(body, "{:10} {about}", route.path());
    }
    text(StatusCode::NOT_FOUND, body)
}

fn not_allowed() -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("the methods are {METHODS}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    answer
}
