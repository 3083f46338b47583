use super::*;

const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"6c1f","stage":"ResponseStarted",
"requestURI":"/api/v1/namespaces/blue/pods/db-0/exec?command=cat\u0026command=%2Fetc%2Fpasswd\u0026container=c","verb":"get",
"user":{"username":"system:serviceaccount:blue:db","groups":["system:serviceaccounts"],"extra":{
"authentication.kubernetes.io/credential-id":["JTI=77aa"],"authentication.kubernetes.io/node-name":["worker-7"],
"authentication.kubernetes.io/pod-name":["db-0"],"authentication.kubernetes.io/pod-uid":["u-1"]}},
"sourceIPs":["10.1.0.7","::ffff:198.18.0.9"],"userAgent":"kubectl/v1.36","objectRef":{"resource":"pods","namespace":"blue",
"name":"db-0","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":101},
"requestReceivedTimestamp":"2026-11-22T02:19:13.978104Z","annotations":{"authorization.k8s.io/decision":"allow",
"authentication.kubernetes.io/issued-credential-id":"JTI=88bb"}}"#;

fn parse(line: &str) -> Result<Parsed, ParseError> {
    Parser::default().parse(line.as_bytes())
}

fn request(line: &str) -> AuditRequest {
    parse(line).expect("an event").request
}

#[test]
fn everything_that_is_documented_is_read() {
    let Parsed { stage, request } = parse(LINE).expect("an event");
    let text = |text: &str| Some(Arc::from(text));
    assert_eq!(stage, Stage::ResponseStarted);
    assert_eq!((&*request.audit_id, request.at_ns), ("6c1f", 1_795_313_953_978_104_000));
    let account = Principal::ServiceAccount { namespace: "blue".into(), name: "db".into() };
    assert_eq!((&*request.user, &request.principal), ("system:serviceaccount:blue:db", &account));
    let bound = Bound { pod: text("db-0"), pod_uid: text("u-1"), node: text("worker-7") };
    assert_eq!(request.bound, Some(bound));
    assert_eq!(request.credential, Some(Credential { kind: CredentialKind::Token, id: "JTI=77aa".into() }));
    let source =
        Source { trusted: Some(IpAddr::from([198, 18, 0, 9])), claimed: vec![IpAddr::from([10, 1, 0, 7])] };
    assert_eq!(request.source, source);
    assert_eq!(request.resource(), ("pods", "exec"));
    assert_eq!((&*request.path, request.code), ("/api/v1/namespaces/blue/pods/db-0/exec", Some(101)));
    assert_eq!(request.command, ["cat".into(), Arc::from("/etc/passwd")]);
    assert_eq!((request.allowed, request.issued), (Some(true), text("JTI=88bb")));
    assert!(!request.truncated);
}

#[test]
fn refused_credentials_have_no_user() {
    let line = r#"{"auditID":"1","stage":"ResponseStarted","requestURI":"/api","verb":"list","user":{},
        "sourceIPs":["198.18.0.9"],"responseStatus":{"code":401},"requestReceivedTimestamp":"2026-11-22T02:19:13Z"}"#;
    let request = request(line);
    assert_eq!((request.principal, request.credential), (Principal::Refused, None));
}

#[test]
fn principals_are_told_by_reserved_names_only() {
    let of = |user: &str| Principal::of(user, |text| text.into());
    assert_eq!(of("system:node:n-1"), Principal::Node("n-1".into()));
    assert_eq!(of("system:anonymous"), Principal::Anonymous);
    assert_eq!(of("system:kube-scheduler"), Principal::Component);
    for person in ["eva", "node:n-1", "system:admin", "system:bootstrap:abc", "system:serviceaccount:x"] {
        assert_eq!(of(person), Principal::Person, "{person}");
    }
}

#[test]
fn credentials_without_id_are_known_by_what_they_can_be() {
    let without = LINE.replace(r#""authentication.kubernetes.io/credential-id":["JTI=77aa"],"#, "");
    let expected =
        Credential { kind: CredentialKind::LegacyToken, id: "system:serviceaccount:blue:db".into() };
    assert_eq!(request(&without).credential, Some(expected));
    let certificate = LINE.replace("JTI=77aa", "X509SHA256=00ff");
    let kind = request(&certificate).credential.map(|credential| credential.kind);
    assert_eq!(kind, Some(CredentialKind::Certificate));
}

#[test]
fn secrets_in_bodies_go_nowhere() {
    let line = LINE.replace(
        r#""responseStatus""#,
        r#""requestObject":{"data":{"password":"aHVudGVyMg=="},"stringData":{"x":"hunter2"}},"responseObject":{"status":{"token":"hunter2"}},"responseStatus""#,
    );
    for resource in ["secrets", "configmaps", "pods"] {
        let line = line.replace(r#""resource":"pods""#, &format!(r#""resource":"{resource}""#));
        let text = format!("{:?}", request(&line));
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    }
    let token = line
        .replace(r#""resource":"pods""#, r#""resource":"serviceaccounts""#)
        .replace(r#""subresource":"exec""#, r#""subresource":"token""#);
    assert_eq!(request(&token).body, None);
}

#[test]
fn hostile_lines_are_errors_and_not_more() {
    let deep =
        |open: &str, close: &str| format!(r#"{{"x":{}{}}}"#, open.repeat(1_000_000), close.repeat(1_000_000));
    let hostile = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\u{0}".to_owned(),
        deep("[", "]"),
        deep(r#"{"a":"#, "1"),
        LINE.replace(r#""verb":"get""#, r#""verb":"get","verb":"list""#),
        LINE.replace(r#""verb":"get""#, r#""verb":{"a":1}"#),
        LINE.replace(r#""code":101"#, r#""code":-1"#),
        LINE.replace(r#""stage":"ResponseStarted""#, r#""stage":"Later""#),
        LINE.replace(
            r#"["JTI=77aa"]"#,
            r#"["JTI=77aa"],"authentication.kubernetes.io/credential-id":["JTI=00"]"#,
        ),
        LINE.replace(r#"["JTI=77aa"]"#, r#""JTI=77aa""#),
        LINE.replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1"),
        LINE.replace(r#""auditID":"6c1f""#, r#""auditID":"""#),
        LINE.replace("2026-11-22T02:19:13.978104Z", "yesterday"),
    ];
    for line in hostile {
        assert!(parse(&line).is_err(), "{}", &line[..line.len().min(200)]);
    }
}

#[test]
fn what_is_long_is_cut_and_said_so() {
    let long = "a".repeat(1 << 20);
    let cut = request(&LINE.replace("kubectl/v1.36", &long));
    assert_eq!(cut.user_agent.map(|agent| agent.len()), Some(TEXT_MAX));
    assert!(cut.truncated);
    let many = format!("[{}]", r#""10.0.0.1","#.repeat(1_000_000) + r#""10.9.9.9""#);
    let cut = request(&LINE.replace(r#"["10.1.0.7","::ffff:198.18.0.9"]"#, &many));
    assert_eq!(cut.source.trusted, Some(IpAddr::from([10, 9, 9, 9])));
    assert!(cut.truncated && cut.source.claimed.len() < SOURCES_MAX);
    let groups = format!(r#"[{}"x"]"#, r#""g","#.repeat(1_000_000));
    let cut = request(&LINE.replace(r#"["system:serviceaccounts"]"#, &groups));
    assert_eq!((cut.groups.len(), cut.truncated), (GROUPS_MAX, true));
}

#[test]
fn deep_bodies_are_passed_over_in_bounded_depth() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let line = LINE.replace(r#""responseStatus""#, &format!(r#""requestObject":{deep},"responseStatus""#));
    assert_eq!(request(&line).body, None);
    let pods = line.replace(r#""subresource":"exec""#, r#""uid":"u""#);
    assert_eq!(request(&pods).body, None);
}

#[test]
fn times_are_read_to_the_nanosecond() {
    let cases = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:34:56Z", Some(951_827_696_000_000_000)),
        ("2026-11-22T02:19:13.978104Z", Some(1_795_313_953_978_104_000)),
        ("2026-11-22T02:19:13.1234567891Z", Some(1_795_313_953_123_456_789)),
        ("2026-11-22T02:19:13", None),
        ("2026-11-22T02:19:13+01:00", None),
        ("2026-13-22T02:19:13Z", None),
        ("2026-11-22T24:19:13Z", None),
        ("2026-11-22T02:19:13.Z", None),
        ("2026-11-22T02:19:13,5Z", None),
        ("+026-11-22T02:19:13Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("", None),
        ("ééééééééééZ", None),
    ];
    for (text, expected) in cases {
        assert_eq!(unix_ns(text), expected, "{text}");
    }
}
