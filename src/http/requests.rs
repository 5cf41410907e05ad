//! The routes of the HTTP listener, and how many requests each has answered.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Metrics,
    Health,
    Readiness,
    /// There is nothing at the path.
    None,
}

impl Route {
    /// All routes, with what they answer.
    pub(super) const ALL: [(Self, &'static str); 3] = [
        (Self::Metrics, "metrics in the text format of Prometheus or OpenMetrics"),
        (Self::Health, "200 while the node's driver answers, else 503"),
        (Self::Readiness, "200 when the node is ready, else 503 and what is missing"),
    ];

    /// The path; for no route a name that is no path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Health => "/healthz",
            Self::Readiness => "/readyz",
            Self::None => "other",
        }
    }

    /// The route of a path.
    pub(super) fn of(path: &str) -> Self {
        Self::ALL.into_iter().map(|(route, _)| route).find(|route| route.path() == path).unwrap_or(Self::None)
    }
}

/// The codes of answers.
const CODES: [StatusCode; 5] = [
    StatusCode::OK,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::SERVICE_UNAVAILABLE,
    // Counts the codes that are not listed here; no answer has one.
    StatusCode::INTERNAL_SERVER_ERROR,
];

/// How many requests were answered, by route and code.
#[derive(Debug, Default)]
pub(super) struct Requests([[AtomicU64; CODES.len()]; 4]);

impl Requests {
    /// Counts an answer.
    pub(super) fn note(&self, route: Route, code: StatusCode) {
        let at = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
        if let Some(count) = self.0.get(route as usize).and_then(|codes| codes.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The numbers of answers above zero: the path of the route, the code, and how many.
    pub(super) fn read(&self) -> Vec<(&'static str, u16, u64)> {
        let routes = [Route::Metrics, Route::Health, Route::Readiness, Route::None];
        let all = routes.into_iter().zip(&self.0).flat_map(|(route, codes)| {
            let count = move |(code, count): (StatusCode, &AtomicU64)| {
                (route.path(), code.as_u16(), count.load(Ordering::Relaxed))
            };
            CODES.into_iter().zip(codes).map(count)
        });
        all.filter(|(.., count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_lead_to_routes() {
        for (route, about) in Route::ALL {
            assert_eq!(Route::of(route.path()), route);
            assert!(!about.is_empty());
        }
        for path in ["/", "", "/metrics/", "/Metrics", "/api/v1/objects", "other", "/readyz/../metrics"] {
            assert_eq!(Route::of(path), Route::None, "{path}");
        }
    }

    #[test]
    fn answers_are_counted_by_route_and_code() {
        let requests = Requests::default();
        requests.note(Route::Metrics, StatusCode::OK);
        requests.note(Route::Metrics, StatusCode::OK);
        requests.note(Route::None, StatusCode::NOT_FOUND);
        let expected = [("/metrics", 200, 2), ("other", 404, 1)];
        assert_eq!(requests.read(), expected);
    }

    proptest! {
        #[test]
        fn only_the_listed_paths_are_routes(path: String) {
            let listed = Route::ALL.into_iter().any(|(route, _)| route.path() == path);
            prop_assert_eq!(Route::of(&path) == Route::None, !listed);
        }
    }
}
