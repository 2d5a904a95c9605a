//! Asks rate limit services about a request, as providers of external authorization are asked: through the mesh, with the
//! identity of the workload that calls, over connections that rest between requests, behind a circuit.

use std::sync::atomic::AtomicBool;

use http::{Request, StatusCode};

use super::authorizer::{Asked, Authorizer, Failed, read};
use crate::base::Reason;
use crate::ext_authz::rate_limit::{self, Counted};
use crate::filter::{Cx, Global, Question, RateLimit, RequestHead};
use crate::l7::exchange::Exchange;
use crate::l7::exchange::answer::Answer;
use crate::l7::message::body::{RequestBody, grpc_status};
use crate::model::ProviderService;

impl Authorizer<'_> {
    /// Asks the services of a policy about a request, one after the other, until one refuses it.
    pub(in crate::l7) async fn count(
        &self,
        policy: &RateLimit,
        cx: &Cx<'_>,
        request: &mut Request<RequestBody>,
        mut exchange: Option<&mut Exchange>,
    ) -> Result<(), Answer> {
        let asked: Vec<_> = {
            let mut headers = std::mem::take(request.headers_mut());
            let (method, uri) = (request.method(), request.uri());
            let head = RequestHead { method, uri, headers: &mut headers };
            let questions = policy.questions(&head).into_iter();
            let asked = questions.map(|it| (it, it.entries(&head, cx))).collect();
            *request.headers_mut() = headers;
            asked
        };
        for (question, entries) in asked {
            self.one_limit(&question, &entries, exchange.as_deref_mut()).await?;
        }
        Ok(())
    }

    async fn one_limit(
        &self,
        question: &Question<'_>,
        entries: &[(crate::base::Str, String)],
        exchange: Option<&mut Exchange>,
    ) -> Result<(), Answer> {
        let metrics = &self.context.dependencies.telemetry.rate_limits().global;
        let service = ProviderService::Service(question.global.service.clone());
        let asked = Asked { service: &service, port: question.global.port, is_http2: true };
        if self.is_for(asked) {
            // Its own answers cannot wait for it.
            return Ok(());
        }
        match self.should_limit(question.global, asked, entries).await {
            Ok(Counted { over: true, headers, quota }) if !question.is_shadow() => {
                metrics.over_limit.inc();
                Err(Answer::of_filter(question.refuses(headers, quota)))
            }
            Ok(Counted { over, headers, quota }) => {
                let outcome = if over { &metrics.shadow } else { &metrics.ok };
                outcome.inc();
                if let Some(exchange) = exchange {
                    exchange.passes(question.passes(over, headers, quota));
                }
                Ok(())
            }
            Err(failed) if question.global.fail_open || question.is_shadow() => {
                metrics.failed_open.inc();
                if let Some(exchange) = exchange {
                    let why = format!("{}; the request passes", question.failure(&failed.why));
                    exchange.has_waited(Some((Reason::RateLimitServiceError, why)));
                }
                Ok(())
            }
            Err(failed) => {
                metrics.error.inc();
                Err(Answer::of_filter(question.fails(&failed.why)))
            }
        }
    }

    async fn should_limit(
        &self,
        global: &Global,
        asked: Asked<'_>,
        entries: &[(crate::base::Str, String)],
    ) -> Result<Counted, Failed> {
        self.may_ask_further().map_err(Failed::from)?;
        let reached = AtomicBool::new(false);
        let host = &global.service.name;
        let question = rate_limit::ask(&global.domain, entries, global.hits, host);
        let calling = async {
            let question = question.map(RequestBody::own);
            let (mut response, lease) = self.send(asked, question, &reached).await?;
            let read = read(response.body_mut()).await;
            if read.is_ok() {
                lease.give_back();
            }
            let (body, trailers) = read?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answers {}", response.status()).into());
            }
            let status = grpc_status(&trailers).or_else(|| grpc_status(response.headers()));
            Ok::<_, Failed>(rate_limit::counted(status, &body)?)
        };
        // Boxed, because it is large, and cut off by the timeout.
        self.within(&global.name, global.timeout, &reached, Box::pin(calling)).await
    }
}
