//! What the sensor costs those who use the Docker API; run by `cargo xtask bench docker`.
//!
//! Requests on one connection and an image that is loaded over TCP, in rounds that alternate between no sensor and one that
//! reads every request, so that a machine that changes its speed changes both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::{IMAGE, PORT, remote};
use sensor_tests::lab::{CONFIGURATION, Lab};
use sensor_tests::netns::NODE_OUTSIDE;
use sensor_tests::process::run;
use sensor_tests::sensor::Sensor;

const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_secs(1);
/// Of the layer that nothing can compress, MiB.
const LAYER_MIB: usize = 128;
const LAYERED: &str = "quaywatch.test/large:1";

fn main() -> Result<()> {
    // `cargo test --benches` calls benchmarks with this flag, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let lab = Lab::build()?;
    let image = large_image(&lab)?;
    // [without, with]
    let (mut requests, mut loads): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
    for round in 0..ROUNDS {
        for step in 0..2 {
            let with = (round + step) % 2;
            let sensor = (with == 1).then(|| Sensor::start(CONFIGURATION)).transpose()?;
            let mark = sensor.as_ref().map(Sensor::mark);
            requests[with].push(request_seconds(&lab)?);
            loads[with].push(load_seconds(&lab, &image)?);
            if let (Some(sensor), Some(mark)) = (sensor, mark) {
                let is_load = |record: &sensor_tests::record::Record| {
                    record.is("api_request", &[("api.route", "/images/load")])
                };
                sensor.wait_after(mark, "the request that loads the image", is_load)?;
                sensor.stop()?;
            }
        }
    }
    println!("docker over TCP, every request read; median of the ratios of {ROUNDS} alternating rounds");
    let [without, with] = &requests;
    println!(
        "  {:<32} {:8.0} /s    with the sensor {:6.3}   aim >= 0.97",
        "GET /_ping on one connection",
        1.0 / median(without),
        ratio(without, with)
    );
    let [without, with] = &loads;
    println!(
        "  {:<32} {:8.0} MiB/s with the sensor {:6.3}   aim >= 0.98",
        "docker load",
        LAYER_MIB as f64 / median(without),
        ratio(without, with)
    );
    Ok(())
}

/// Seconds for one request.
fn request_seconds(lab: &Lab) -> Result<f64> {
    let address = SocketAddr::new(NODE_OUTSIDE.parse::<IpAddr>()?, PORT);
    let mut stream = lab.network.client.within(|| TcpStream::connect(address))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < SLICE {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench\r\n\r\n")?;
        read_answer(&mut answers)?;
        count += 1;
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(count))
}

fn read_answer(answers: &mut BufReader<TcpStream>) -> Result<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(answers.read_line(&mut line)? > 0, "the daemon hung up");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    ensure!(body == b"OK", "not an answer to a ping: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Seconds for loading an image.
fn load_seconds(lab: &Lab, image: &Path) -> Result<f64> {
    let image = image.to_str().context("a path that is no text")?;
    let begun = Instant::now();
    remote(&lab.network, NODE_OUTSIDE, &["load", "--quiet", "--input", image])?;
    Ok(begun.elapsed().as_secs_f64())
}

/// An archive of an image with a large layer.
fn large_image(lab: &Lab) -> Result<PathBuf> {
    let layer = lab.directory().join("layer");
    let archive = lab.directory().join("large.tar");
    let container = lab.dockerd.docker(&["create", IMAGE, "/bin/true"])?;
    let mut random = std::fs::File::open("/dev/urandom")?.take(LAYER_MIB as u64 * (1 << 20));
    std::io::copy(&mut random, &mut std::fs::File::create(&layer)?)?;
    let layer = layer.to_str().context("a path that is no text")?;
    lab.dockerd.docker(&["cp", layer, &format!("{container}:/layer")])?;
    lab.dockerd.docker(&["commit", &container, LAYERED])?;
    run(lab.dockerd.client().args(["save", "--output"]).arg(&archive).arg(LAYERED))?;
    lab.dockerd.docker(&["rm", &container])?;
    Ok(archive)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median of a / b, pair by pair.
fn ratio(a: &[f64], b: &[f64]) -> f64 {
    median(&a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>())
}
