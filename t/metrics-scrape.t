#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_metrics: its directives, caps of labels, what other modules show, the
# time of a large scrape, and a real Prometheus.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Port;
use AI::Prom;
use AI::Provider;
use AI::Redis;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

sub scrape {
    my ($g, %opt) = @_;
    my $r = $g->client->get('/metrics', headers => $opt{headers} // []);
    my $m = AI::Prom->read($r->{body});

    is_deeply($m->{wrong}, [], 'format of a scrape') if @{ $m->{wrong} };
    $m->{answer} = $r;

    return $m;
}

# what is wrong with a configuration

sub refused {
    my ($name, $http, $location, $expected) = @_;
    my ($rc, $out) = AI::Gateway->new(conf => <<"END")->conf_test;
events {}
http {
    $http
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location = /metrics { $location }
    }
}
END

    is($rc, 1, "$name is refused");
    like($out, $expected, '... why');
}

refused('a small zone', 'ai_metrics_zone 16k;', 'ai_metrics;',
        qr/"ai_metrics_zone" is too small, it needs at least \d+k in .*:3/);
refused('a size', 'ai_metrics_zone big;', 'ai_metrics;',
        qr/invalid size "big" of "ai_metrics_zone".* in .*:3/);
refused('a zone twice', 'ai_metrics_zone 1m; ai_metrics_zone 1m;',
        'ai_metrics;', qr/"ai_metrics_zone" directive is duplicate in .*:3/);
refused('a zone for nothing', 'ai_metrics_zone 1m;', '',
        qr/"ai_metrics_zone" has no effect, there is no location .*:3/);
refused('labels for nothing', 'ai_metrics_labels tenant=3;', '',
        qr/"ai_metrics_labels" has no effect.*:3/);
refused('OpenTelemetry for nothing', 'ai_metrics_otel on;', '',
        qr/"ai_metrics_otel" has no effect.*:3/);
refused('a label', 'ai_metrics_labels tennant=3;', 'ai_metrics;',
        qr/unknown parameter "tennant=3".*did you mean "tenant".*:3/);
refused('a number', 'ai_metrics_labels tenant=many;', 'ai_metrics;',
        qr/invalid "tenant=many".*from 1 to 1000 in .*:3/);
refused('a large number', 'ai_metrics_labels key=1001;', 'ai_metrics;',
        qr/invalid "key=1001".*:3/);
refused('a label twice', 'ai_metrics_labels key=1 key=2;', 'ai_metrics;',
        qr/has a parameter twice in .*:3/);
refused('labels twice', 'ai_metrics_labels key=1; ai_metrics_labels key=1;',
        'ai_metrics;', qr/is duplicate in .*:3/);
refused('ai_metrics twice', '', 'ai_metrics; ai_metrics;',
        qr/"ai_metrics" directive is duplicate in .*:6/);

# nginx leaves its memory when a zone cannot be made, which a checker tells

refused('labels that do not fit',
        'ai_metrics_zone 256k; ai_metrics_labels tenant=1000 key=1000;',
        'ai_metrics;', qr/no memory for the figures.*in "ai_metrics_zone"/)
    if !checked();

# tenants and keys; limits, live data, breakers

my $p = provider();
my $url = $p->url;
my $keys = AI::Keys->new;

my @tenants = ('a"b\\c', "sch\xc3\xb6n", '<script>', 'other',
               map { "t$_" } 5 .. 20);

for my $i (0 .. $#tenants) {
    utf8::decode(my $name = $tenants[$i]);
    $keys->add("k$i", tenant => $name);
}

$keys->add('alone');

my $gw = gateway(<<"END", files => { 'keys.json' => $keys->text },
    ai_data %%DIR%% interval=50ms;
    ai_provider p { dialect openai; endpoint $url; key none;
                    max_concurrent 5; }
    ai_provider k { dialect openai; endpoint $url;
                    key env:AI_KEY_1; key env:AI_KEY_2; }
    ai_model ok { target p/usage:10.20; price in=1 out=1; }
    ai_model bad { target p/status:500; fallback k/n:1; retry off;
                   breaker 50%/10s min=2 open=60s; }
    ai_limit_zone all zone=whole requests=3r/m tokens=100k/m;
    ai_limit_zone \$ai_tenant zone=each concurrent=100;
    ai_metrics_labels tenant=5 key=3;
    ai_metrics_zone 1m;
END
    env => { AI_KEY_1 => 'sk-secret-one', AI_KEY_2 => 'sk-secret-two' },
    workers => 2, server => <<'END');
    location /v1/ { ai_auth key; ai_limit each; ai_pass model; }
    location /l/  { ai_limit whole; ai_pass model; }
    location = /metrics { ai_metrics; }
END

my %sent;

for my $round (1 .. 5) {
    for my $i (0 .. $#tenants, (0) x 5) {
        $gw->client->post('/v1/chat/completions', chat('ok'),
                          headers => $keys->bearer("k$i"));
        $sent{$tenants[$i]}++;
        $sent{all}++;
    }
}

$gw->client->post('/v1/chat/completions', chat('ok'),
                  headers => $keys->bearer('alone'));
$gw->client->post('/v1/chat/completions', chat('ok'));
$gw->client->post('/v1/chat/completions', chat('ok'),
    headers => [ Authorization => 'Bearer ' . $keys->fresh ]);
$gw->client->post('/l/chat/completions', chat('ok')) for 1 .. 5;
$gw->client->post('/l/chat/completions', chat('bad', stream => 1)) for 1 .. 2;

my $m;

ok($gw->wait_for(sub {
    $m = scrape($gw);
    $m->sum('nginx_ai_requests_total') == $sent{all} + 10
}), 'all are counted');

for my $kind ([ 'tenant', 5 ], [ 'key', 3 ]) {
    my ($label, $cap) = @$kind;
    my %names = map { $_->{labels}{$label} => 1 }
                $m->find("nginx_ai_${label}_requests_total");

    is(scalar(keys %names), $cap + 1, "series of ${label}s, and of others");
    ok($names{other}, '... others');
    is($m->sum("nginx_ai_${label}_requests_total"), $sent{all} + 10,
       '... sum of requests');
    is($m->sum("nginx_ai_${label}_tokens_total", type => 'output'),
       $m->sum('nginx_ai_tokens_total', type => 'output'),
       '... sum of tokens');
    is(sprintf('%.9f', $m->sum("nginx_ai_${label}_cost_dollars_total")),
       sprintf('%.9f', $m->sum('nginx_ai_cost_dollars_total')),
       '... sum of money');
    cmp_ok($m->value('nginx_ai_metrics_evictions_total', label => $label),
           '>', 20, '... evictions');
}

$gw->client->post('/v1/chat/completions', chat('ok'),
                  headers => $keys->bearer("k$_")) for 0 .. 2;

$gw->wait_for(sub {
    $m = scrape($gw);
    $m->sum('nginx_ai_requests_total') == $sent{all} + 13
});

for my $i (0 .. 2) {
    is($m->value('nginx_ai_tenant_tokens_total', tenant => $tenants[$i],
                 type => 'output') > 0, 1, "tenant $i, a hostile name");
}

is($m->value('nginx_ai_auth_refusals_total', reason => 'none'), 1,
   'refusals: no credential');
is($m->value('nginx_ai_auth_refusals_total', reason => 'unknown'), 1,
   '... unknown');
is($m->sum('nginx_ai_requests_total', outcome => 'denied'), 2,
   '... as an outcome');
is($m->value('nginx_ai_data_records', dataset => 'keys'), @tenants + 1,
   'records of live data');
is($m->value('nginx_ai_data_stale', dataset => 'keys'), 0, '... good');
is($m->value('nginx_ai_limit_decisions_total', zone => 'whole',
             decision => 'allowed')
   + $m->value('nginx_ai_limit_decisions_total', zone => 'whole',
               decision => 'refused'), 7, 'decisions');
is($m->sum('nginx_ai_requests_total', outcome => 'limited'),
   $m->value('nginx_ai_limit_decisions_total', zone => 'whole',
             decision => 'refused'), '... as an outcome');
is($m->value('nginx_ai_limit_amount', zone => 'whole', meter => 'tokens'),
   100000, 'the limit of a zone with one key');
cmp_ok($m->value('nginx_ai_limit_used', zone => 'whole', meter => 'requests'),
       '>', 0, '... what is used');
is($m->value('nginx_ai_limit_amount', zone => 'each'), undef,
   '... not of one with many');
is($m->value('nginx_ai_limit_keys', zone => 'whole'), 1, 'keys of a zone');
is($m->value('nginx_ai_provider_max_attempts', provider => 'p'), 5,
   'the most attempts');
is($m->value('nginx_ai_provider_running_attempts', provider => 'p'), 0,
   '... and those that run');
is($m->value('nginx_ai_provider_key_cooldown_seconds', provider => 'k',
             key => 2), 0, 'a key of a provider');
is($m->value('nginx_ai_breaker_state', model => 'bad',
             target => 'p/status:500'), 0, 'a closed breaker');
unlike($m->{answer}{body}, qr/secret/, 'no secrets');

SKIP: {
    skip 'no promtool', 1 if !AI::Prom::promtool();
    is(AI::Prom::lint($m->{answer}{body}, $gw->dir), '', 'promtool likes it');
}

$gw->client->post('/v1/chat/completions', chat('bad'),
                  headers => $keys->bearer('k0')) for 1 .. 4;
$m = scrape($gw);
is($m->value('nginx_ai_breaker_state', model => 'bad',
             target => 'p/status:500'), 2, '... is open');
is($m->value('nginx_ai_breaker_opens_total', model => 'bad',
             target => 'p/status:500'), 1, '... opened once');

$gw->write_file('keys.json', '{"bad":');
ok($gw->wait_for(sub {
    $m = scrape($gw);
    $m->value('nginx_ai_data_stale', dataset => 'keys')
}), 'a bad file');
is($m->value('nginx_ai_data_failures_total', dataset => 'keys'), 1,
   '... is counted');
is($m->value('nginx_ai_data_records', dataset => 'keys'), @tenants + 1,
   '... the records stay');

# a smaller cap: nothing is lost; none: no series

(my $conf = $gw->{conf}) =~ s/tenant=5 key=3/tenant=2/;
my $sum = $m->sum('nginx_ai_tenant_requests_total');
$gw->write_file('keys.json', $keys->text);
ok($gw->reload(conf => $conf), 'reload');
$m = scrape($gw);
is($m->sum('nginx_ai_tenant_requests_total'), $sum, '... a smaller cap');
is(scalar($m->find('nginx_ai_tenant_requests_total', outcome => 'success')),
   3, '... fewer series');
is($m->find('nginx_ai_key_requests_total'), 0, '... no keys');

my $prom = $gw;

# Redis

SKIP: {
    my $without = AI::Redis::missing();
    skip $without, 5 if $without;

    my $redis = AI::Redis->new->start;
    my $port = $redis->{port};

    $gw = gateway(<<"END", workers => 2, server => <<'END');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model ok { target p/usage:10.20; price in=1 out=1; }
    ai_redis main { server 127.0.0.1:$port; timeout 200ms; on_error local; }
    ai_limit_zone all zone=shared requests=1000r/m redis=main;
END
    location /v1/ { ai_limit shared; ai_pass model; }
    location = /metrics { ai_metrics; }
END

    ok($gw->wait_for(sub {
        $gw->client->post('/v1/chat/completions', chat('ok'));
        $m = scrape($gw);
        $m->value('nginx_ai_redis_up', redis => 'main')
            && $m->value('nginx_ai_redis_commands_total', redis => 'main')
    }), 'Redis is up');
    is($m->value('nginx_ai_redis_breaker_open', redis => 'main'), 0,
       '... its breaker');

    my @all = map { scrape($gw)->value('nginx_ai_redis_up', redis => 'main') }
              1 .. 8;
    is("@all", '1 1 1 1 1 1 1 1', '... to all workers');

    $redis->kill;

    ok($gw->wait_for(sub {
        $m = scrape($gw);
        !$m->value('nginx_ai_redis_up', redis => 'main')
    }), '... is down');
    cmp_ok($m->value('nginx_ai_redis_errors_total', redis => 'main'), '>', 0,
           '... errors');
}

# 10,000 series

my $models = join "\n", map {
    "ai_model m$_ { target p/usage:10.20; price in=1 out=1; }"
} 1 .. 150;

$gw = gateway(<<"END", server => <<'END');
    ai_provider p { dialect openai; endpoint $url; key none; }
    $models
END
    location /v1/ { ai_pass model; }
    location = /metrics { ai_metrics; }
    location = /ping { return 200 "pong"; }
END

$gw->client->post('/v1/chat/completions', chat("m$_", stream => 1))
    for 1 .. 150;

$gw->wait_for(sub {
    $m = scrape($gw);
    $m->sum('nginx_ai_requests_total') == 150
});

my $n = $m->count;
cmp_ok($n, '>', 10000, "a scrape of $n series");

my ($worker) = $gw->workers;

sub cpu {
    open my $f, '<', "/proc/$worker/schedstat" or return;
    return (split ' ', <$f>)[0] / 1e6;
}

SKIP: {
    skip 'no schedstat', 2 if !defined cpu() || checked();

    my @took;

    for (1 .. 10) {
        my $before = cpu();
        $gw->client->get('/metrics');
        push @took, cpu() - $before;
    }

    my ($least) = sort { $a <=> $b } @took;
    my $ms = sprintf '%.1f', $least * 10000 / $n;

    note "$ms ms of CPU time for 10,000 series";
    cmp_ok($ms, '<', 30, "ms of CPU time for 10,000 series: $ms");

    # others are served meanwhile

    my @waits;

    for (1 .. 30) {
        my $s = $gw->client->open('/metrics', undef, method => 'GET');
        my $start = time();
        my $r = $gw->client->get('/ping');
        push @waits, (time() - $start) * 1000 if $r->{status} == 200;
        $s->finish;
    }

    @waits = sort { $a <=> $b } @waits;
    note sprintf 'beside a scrape: median %.1f ms', $waits[@waits / 2];

    # a machine that is busy delays many, a scrape that blocks all of them
    cmp_ok($waits[@waits / 4], '<', 20, 'others are served beside a scrape');
}

# a client that leaves in the middle

$gw->client->open('/metrics', undef, method => 'GET')->reset for 1 .. 20;
is(scrape($gw)->count, $n, 'scrapes that were left');

# a real Prometheus

my $binary = AI::Prom::prometheus();

SKIP: {
    skip 'no prometheus', 6 if !$binary;

    my $port = AI::Port::free_port();
    my $dir = $gw->dir;
    my $target = $prom->port(0);

    $gw->write_file('prometheus.yml', <<"END");
global: { scrape_interval: 200ms }
scrape_configs:
  - job_name: ai
    static_configs: [ { targets: [ '127.0.0.1:$target' ] } ]
END

    my $pid = fork // die;

    if ($pid == 0) {
        open STDOUT, '>', "$dir/prometheus.log";
        open STDERR, '>&', \*STDOUT;
        exec $binary, "--config.file=$dir/prometheus.yml",
             "--storage.tsdb.path=$dir/prometheus",
             "--web.listen-address=127.0.0.1:$port",
             '--enable-feature=exemplar-storage' or POSIX::_exit(1);
    }

    my $query = sub {
        my ($text) = @_;
        $text =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/ge;
        my $r = AI::Client->new(port => $port)
                          ->get("/api/v1/query?query=$text");
        my $j = eval { decode_json($r->{body}) } or return;
        my @found = @{ $j->{data}{result} // [] };

        return @found == 1 ? $found[0]{value}[1] : undef;
    };

    my $up = $prom->wait_for(sub { ($query->('up{job="ai"}') // 0) == 1 }, 30);
    ok($up, 'Prometheus scrapes it');

    my $trace = '0af7651916cd43dd8448eb211c80319c';

    $prom->client->post('/v1/chat/completions', chat('ok', stream => 1),
        headers => [ @{ $keys->bearer('k0') },
                     traceparent => "00-$trace-b7ad6b7169203331-01" ]);

    my $now;
    $prom->wait_for(sub {
        $now = scrape($prom);
        $now->sum('nginx_ai_active_requests') == 0
    });

    for my $name ('nginx_ai_requests_total', 'nginx_ai_tokens_total',
                  'nginx_ai_request_duration_seconds_count')
    {
        my $expected = $now->sum($name);

        ok($prom->wait_for(sub { ($query->("sum($name)") // 0) == $expected },
                           10), "$name: $expected");
    }

    cmp_ok($query->('histogram_quantile(0.95, sum by (le) '
                    . '(nginx_ai_request_duration_seconds_bucket))') // -1,
           '>', 0, 'a quantile');

    my $r;
    $prom->wait_for(sub {
        $r = AI::Client->new(port => $port)
             ->get('/api/v1/query_exemplars?query='
                   . 'nginx_ai_request_duration_seconds_bucket'
                   . '&start=0&end=' . (time() + 10));
        $r->{body} =~ /$trace/
    }, 10);
    like($r->{body}, qr/"trace_id":"$trace"/, 'an exemplar');

    kill 'TERM', $pid;
    waitpid $pid, 0;
}

done_testing();
