use super::*;
use crate::tls::ja4::ja4;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A connection whose two streams are captured whole, unless told otherwise.
struct Wire {
    conversation: Conversation,
    sent: [u64; 2],
    last: Option<Way>,
    steps: Vec<Step>,
}

impl Wire {
    fn new() -> Self {
        Self { conversation: Conversation::new(Api::Docker), sent: [0; 2], last: None, steps: Vec::new() }
    }

    /// A segment of which so many bytes are captured.
    fn send(&mut self, way: Way, bytes: &[u8], captured: usize) -> &mut Self {
        let sent = &mut self.sent[way as usize];
        let piece = Piece {
            offset: *sent,
            settled: *sent,
            bytes: &bytes[..captured.min(bytes.len())],
            len: bytes.len() as u64,
        };
        *sent += bytes.len() as u64;
        let turn = self.last.replace(way) != Some(way);
        self.conversation.push(Timestamp::default(), way, piece, turn, &mut self.steps);
        self
    }

    fn ask(&mut self, text: &str) -> &mut Self {
        self.send(Way::ToServer, text.as_bytes(), usize::MAX)
    }

    fn answer(&mut self, text: &str) -> &mut Self {
        self.send(Way::ToClient, text.as_bytes(), usize::MAX)
    }

    /// What was told: method, route, status, what was created, whether it is exact.
    fn told(&mut self) -> Vec<String> {
        let told = self.steps.drain(..).filter_map(|step| match step {
            Step::Asked { .. } => None,
            Step::Hello(_, hello) => {
                Some(ja4(&hello).unwrap_or_else(|| format!("{:?}", hello.flaw.expect("no fingerprint"))))
            }
            Step::Foreign(_, foreign) => Some(format!("{foreign:?}")),
            Step::Answered(one) => {
                let status = one.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
                let created = if one.created.is_some() { " created" } else { "" };
                let exact = if one.exact { "" } else { " inexact" };
                Some(format!("{} {} {status}{created}{exact}", one.head.method, one.endpoint.route))
            }
        });
        told.collect()
    }
}

fn created() -> String {
    let body = format!("{{\"Id\":\"{ID}\",\"Warnings\":[]}}\n");
    format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const PING: &str = "GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n";
const PONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
const CREATE: &str =
    "POST /v1.41/containers/create HTTP/1.1\r\nHost: h\r\nContent-Length: 13\r\n\r\n{\"Image\":\"a\"}";

#[test]
fn one_connection_carries_many_requests() {
    let mut wire = Wire::new();
    for _ in 0..500 {
        wire.ask(PING).answer(PONG);
        assert_eq!(wire.told(), ["GET /_ping 200"]);
    }
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["POST /containers/create 201 created"]);
}

#[test]
fn segments_may_be_as_short_as_a_byte() {
    let mut wire = Wire::new();
    for byte in format!("{CREATE}{PING}").bytes() {
        wire.send(Way::ToServer, &[byte], 1);
    }
    for byte in format!("HTTP/1.1 100 Continue\r\n\r\n{}{PONG}", created()).bytes() {
        wire.send(Way::ToClient, &[byte], 1);
    }
    assert_eq!(wire.told(), ["POST /containers/create 201 created", "GET /_ping 200"]);
}

#[test]
fn pipelined_requests_get_their_own_answers() {
    let mut wire = Wire::new();
    wire.ask(&format!("HEAD /_ping HTTP/1.1\r\n\r\n{CREATE}{PING}"));
    wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").answer(&created()).answer(PONG);
    assert_eq!(wire.told(), ["HEAD /_ping 200", "POST /containers/create 201 created", "GET /_ping 200"]);
}

#[test]
fn what_follows_an_upgrade_is_no_request() {
    let start = "POST /exec/x/start HTTP/1.1\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";
    let mut wire = Wire::new();
    wire.ask(start)
        .ask(PING)
        .answer("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n")
        .ask(PING)
        .answer(&created());
    assert_eq!(wire.told(), ["POST /exec/{id}/start 101"]);
    // Without the header the answer lasts until the end.
    let mut wire = Wire::new();
    wire.ask(&start.replace("Upgrade: tcp\r\n", "")).answer("HTTP/1.1 200 OK\r\n\r\n").ask(PING).answer(PONG);
    assert_eq!(wire.told(), ["POST /exec/{id}/start 200"]);
    // Refused: it goes on with HTTP, with what came before the answer too.
    let mut wire = Wire::new();
    wire.ask(start).ask(PING).answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").answer(PONG);
    assert_eq!(wire.told(), ["POST /exec/{id}/start 404", "GET /_ping 200"]);
}

#[test]
fn a_forged_answer_in_a_body_is_a_body() {
    let mut wire = Wire::new();
    let forged = created();
    wire.ask("GET /containers/x/logs HTTP/1.1\r\n\r\n");
    wire.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.answer(&format!("{:x}\r\n{forged}\r\n0\r\n\r\n", forged.len()));
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /containers/{id}/logs 200", "POST /containers/create 201 created"]);
}

#[test]
fn a_long_answer_of_known_length_costs_no_thread() {
    let mut wire = Wire::new();
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    wire.ask("GET /info HTTP/1.1\r\n\r\n").send(Way::ToClient, long.as_bytes(), 100);
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /info 200", "POST /containers/create 201 created"]);
}

#[test]
fn what_is_read_after_the_thread_was_lost_is_not_exact() {
    let mut wire = Wire::new();
    let long = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}", "x".repeat(5000));
    wire.ask("GET /containers/json HTTP/1.1\r\n\r\n").send(Way::ToClient, long.as_bytes(), 100);
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /containers/json 200", "POST /containers/create 201 created inexact"]);
    // The same when nothing tells that more of the answer came but its place in the stream.
    let mut wire = Wire::new();
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nx";
    wire.ask("GET /containers/json HTTP/1.1\r\n\r\n").answer(begun);
    wire.sent[Way::ToClient as usize] += 5000;
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /containers/json 200", "POST /containers/create 201 created inexact"]);
    // Two requests at once, and nobody can tell whose answer comes.
    let mut wire = Wire::new();
    wire.ask("GET /containers/json HTTP/1.1\r\n\r\n").send(Way::ToClient, long.as_bytes(), 100);
    wire.ask(CREATE).ask(PING).answer(&created()).ask(PING).answer(PONG);
    let told = wire.told();
    let expected = ["POST /containers/create - inexact", "GET /_ping - inexact", "GET /_ping 200 inexact"];
    assert_eq!(told[1..], expected);
    // What the server says is no answer: so goes that thread, not the connection.
    let mut wire = Wire::new();
    wire.ask(PING).answer("no answer\r\n\r\n").ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /_ping - inexact", "POST /containers/create 201 created inexact"]);
}

#[test]
fn who_asks_more_at_a_time_than_is_waited_for_is_read_all_the_same() {
    for count in [1, 63, 64, 65, 66, 127, 128, 129, 400] {
        for create_at in [0, count / 2, count - 1] {
            let (mut asked, mut answers) = (vec![PING; count], vec![PONG.to_owned(); count]);
            (asked[create_at], answers[create_at]) = (CREATE, created());
            let mut wire = Wire::new();
            wire.ask(&asked.concat());
            assert!(wire.conversation.heap_bytes() < WAITING_MAX * (BODY_MAX + EXCHANGE_BYTES));
            wire.answer(&answers.concat());
            for _ in 0..2 {
                wire.ask(PING).answer(PONG).ask(CREATE).answer(&created());
            }
            let (told, is_few) = (wire.told(), count <= WAITING_MAX);
            assert_eq!(told.len(), count + 4, "each request once: {count}");
            for (index, one) in told[..count].iter().enumerate() {
                let expected = match (index == create_at, is_few) {
                    (false, true) => "GET /_ping 200",
                    (false, false) => "GET /_ping - inexact",
                    (true, true) => "POST /containers/create 201 created",
                    (true, false) => "POST /containers/create - inexact",
                };
                assert_eq!(one, expected, "{index} of {count}");
            }
            let quality = if is_few { "" } else { " inexact" };
            let turn =
                [format!("GET /_ping 200{quality}"), format!("POST /containers/create 201 created{quality}")];
            assert_eq!(told[count..], [turn.clone(), turn].concat(), "{count}");
            assert_eq!(wire.conversation.unread(), 0);
        }
    }
}

#[test]
fn who_goes_on_before_all_is_answered_has_no_answer_proved() {
    let mut wire = Wire::new();
    wire.ask(&PING.repeat(WAITING_MAX + 2)).answer(PONG).ask(CREATE);
    wire.answer(&PONG.repeat(WAITING_MAX + 1)).answer(&created()).ask(CREATE).answer(&created());
    let told = wire.told();
    assert_eq!(told.len(), WAITING_MAX + 4, "each request once");
    assert!(told.iter().all(|one| one.ends_with("inexact")), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("POST /containers/create 201 created inexact"));
}

#[test]
fn a_request_behind_one_that_may_upgrade_is_told_though_no_answer_is_read() {
    let mut wire = Wire::new();
    let exec = "POST /exec/x/start HTTP/1.1\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}";
    wire.ask(&format!("{}{exec}{CREATE}", PING.repeat(WAITING_MAX))).answer(PONG).ask(PING).answer(PONG);
    let told = wire.told();
    let expected =
        ["POST /exec/{id}/start - inexact", "POST /containers/create - inexact", "GET /_ping 200 inexact"];
    assert_eq!(told[WAITING_MAX..], expected);
    wire.ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["POST /containers/create 201 created inexact"]);
}

#[test]
fn two_versions_of_the_same_bytes_cost_one_turn_and_are_counted() {
    let mut wire = Wire::new();
    wire.ask(PING).answer(PONG);
    let at = wire.sent[Way::ToServer as usize];
    for bytes in ["GET /info", "GET /_pin"] {
        let piece = Piece { offset: at + 5, settled: at, bytes: bytes.as_bytes(), len: 9 };
        wire.conversation.push(Timestamp::default(), Way::ToServer, piece, false, &mut wire.steps);
    }
    wire.sent[Way::ToServer as usize] += 14;
    wire.answer(PONG).ask(CREATE).answer(&created());
    assert_eq!(wire.told(), ["GET /_ping 200", "POST /containers/create 201 created inexact"]);
    assert_eq!(wire.conversation.unread(), 1);
}

const HELLO: &[u8] = include_bytes!("../../../../../tests/fixtures/tls/kubectl-1.32.hello");
const KUBECTL: &str = "t13d1311h2_f57a46bbacb6_e7c285222651";

#[test]
fn tls_client_is_told_by_its_hello_in_any_segments() {
    for each in [1, 7, 1448, HELLO.len()] {
        let mut wire = Wire::new();
        for segment in HELLO.chunks(each) {
            wire.send(Way::ToServer, segment, usize::MAX);
        }
        assert_eq!(wire.told(), [KUBECTL]);
        wire.send(Way::ToClient, b"\x16\x03\x03\0\x01HTTP/1.1 200 OK\r\n\r\n", usize::MAX)
            .ask(PING)
            .answer(PONG);
        wire.conversation.close(Timestamp::default(), &mut wire.steps);
        assert_eq!(wire.told(), [""; 0], "what is said then is not read");
    }
}

#[test]
fn a_hello_after_something_else_is_none() {
    let mut wire = Wire::new();
    wire.ask("\r\n").send(Way::ToServer, HELLO, usize::MAX);
    wire.conversation.close(Timestamp::default(), &mut wire.steps);
    assert_eq!(wire.told(), ["Unknown"]);
}

#[test]
fn hello_that_is_not_whole_is_told_as_that() {
    let mut cut = Wire::new();
    cut.send(Way::ToServer, &HELLO[..700], usize::MAX);
    assert!(cut.conversation.heap_bytes() >= 690, "it is accounted for");
    cut.conversation.close(Timestamp::default(), &mut cut.steps);
    assert_eq!(cut.told(), ["Cut"]);
    let mut missed = Wire::new();
    missed.send(Way::ToServer, &HELLO[..700], 600).send(Way::ToServer, &HELLO[700..], usize::MAX);
    missed.conversation.close(Timestamp::default(), &mut missed.steps);
    assert_eq!(missed.told(), ["Cut"]);
    let mut malformed = Wire::new();
    malformed.send(Way::ToServer, b"\x16\x03\x01\0\x05hello", usize::MAX);
    assert_eq!(malformed.told(), ["Malformed"]);
}

#[test]
fn other_protocols_are_said_once() {
    for (bytes, expected) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"[..], "Http2"),
        (b"\0\x01\x02\r\n\r\n", "Unknown"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Unknown"),
    ] {
        let mut wire = Wire::new();
        wire.send(Way::ToServer, bytes, usize::MAX).ask(PING).answer(PONG);
        wire.conversation.close(Timestamp::default(), &mut wire.steps);
        assert_eq!(wire.told(), [expected]);
    }
}

#[test]
fn a_request_is_told_though_nobody_answers_or_its_head_never_ends() {
    let mut wire = Wire::new();
    wire.ask(PING).ask("GET /info HTTP/1.1\r\nHost: h\r\nX-Slow");
    wire.conversation.close(Timestamp::default(), &mut wire.steps);
    assert_eq!(wire.told(), ["GET /_ping -", "GET /info -"]);
    let mut wire = Wire::new();
    wire.ask(&format!("GET /info HTTP/1.1\r\nX: {}", "x".repeat(9000)));
    wire.ask("\r\n\r\n").answer(PONG);
    wire.conversation.close(Timestamp::default(), &mut wire.steps);
    assert_eq!(wire.told(), ["GET /info 200 inexact"]);
}

#[test]
fn memory_is_bounded() {
    let mut wire = Wire::new();
    for _ in 0..1000 {
        wire.ask(&format!(
            "POST /containers/create HTTP/1.1\r\nContent-Length: 30000\r\n\r\n{}",
            "[".repeat(30_000)
        ));
        assert!(wire.conversation.heap_bytes() < WAITING_MAX * (BODY_MAX + EXCHANGE_BYTES) + (64 << 10));
    }
}
