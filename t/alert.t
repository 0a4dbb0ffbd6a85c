#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_alert_webhook: alerts of quotas are posted, signed, and again.

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit qw(provider gateway chat);
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $fails = 0;

my $hook = AI::Provider->start(handler => sub {
    my ($req) = @_;
    return $req->{path} =~ /fail/ && $fails++ == 0
           ? [ [ 'sleep', 3000 ],
               @{ AI::Provider::json_script(500, {}) } ]
           : [ $req->{path} =~ /good/ ? [ 'sleep', 3000 ] : (),
               @{ AI::Provider::json_script(200, {}) } ];
});

# mistakes

sub bad {
    my ($name, $args, $why) = @_;
    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_alert_webhook $args;
    server { listen 127.0.0.1:%%PORT_0%%; }
}
END
    my ($rc, $out) = $gw->conf_test;

    isnt($rc, 0, "$name: refused");
    like($out, $why, "$name: why");
    like($out, qr/nginx\.conf:\d+/, "$name: where");
}

bad('URL', 'ftp://x/', qr/it must be "https:/);
bad('parameter', 'http://127.0.0.1/ secrt=x', qr/invalid parameter "secrt=x"/);
bad('secret', 'http://127.0.0.1/ secret=x',
    qr/"secret=" of "ai_alert_webhook" must be file:PATH or env:NAME/);
bad('file', 'http://127.0.0.1/ secret=file:/no/such', qr/No such file/);
bad('timeout', 'http://127.0.0.1/ timeout=x', qr/invalid parameter "timeout/);
bad('tls_verify', 'http://127.0.0.1/ tls_verify=x',
    qr/invalid parameter "tls_verify/);
bad('twice', 'http://127.0.0.1/; ai_alert_webhook http://127.0.0.1/',
    qr/is duplicate/);

# effects

sub posted {
    my ($path, $n) = @_;
    my @posted;

    for (1 .. 200) {
        @posted = grep { $_->{path} =~ /$path/ } $hook->log;
        last if @posted >= $n;
        sleep(0.1);
    }

    return @posted;
}

for my $case (qw(good fail)) {
    my $gw = AI::Gateway->new(files => { secret => "s3cret\n" });

    $gw->write_conf(<<"END");
events {}
http {
    ai_provider p { dialect openai; endpoint @{[ $p->url ]}; key none; }
    ai_model m { target p/usage:100.0; price in=1000 out=1; }
    ai_quota_zone \$http_x_key zone=q tokens=1000/day usd=100/day
                  alert=50%,80%;
    ai_alert_webhook @{[ $hook->url ]}/$case secret=file:%%DIR%%/secret;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { ai_quota q; ai_pass model; }
    }
}
END
    $gw->allow(qr/of the quota of|could not be posted/);
    $gw->start;

    my $ask = sub {
        $gw->client->post('/v1/chat/completions', chat('m'),
                          headers => [ 'X-Key' => "a\"b" ]);
    };

    $ask->() for 1 .. 4;
    is(scalar(posted($case, 0)), 0, "$case: below the threshold");

    my $start = time();
    is($ask->()->{status}, 200, '... passes it');
    cmp_ok(time() - $start, '<', 2.5, '... without a wait');

    my @posted = posted($case, $case eq 'fail' ? 2 : 1);
    is(scalar @posted, $case eq 'fail' ? 2 : 1, '... is posted');

    my $req = $posted[-1];
    my $body = decode_json($req->{body});

    is($req->{method}, 'POST', '... method');
    is(join(' ', map { "$_=$body->{$_}" }
            qw(type zone key meter percent used limit)),
       'type=quota zone=q key=a"b meter=tokens percent=50 used=500 limit=1000',
       '... body');
    cmp_ok($body->{reset}, '>', time(), '... reset');

    my $time = $req->{headers}{'x-ai-timestamp'};
    cmp_ok(abs($time - time()), '<', 30, '... time');
    is($req->{headers}{'x-ai-signature'},
       'sha256=' . hmac_sha256_hex("$time.$req->{body}", 's3cret'),
       '... signature');

    $ask->() for 1 .. 2;
    sleep(0.3);
    is(scalar(posted($case, 0)), scalar @posted, '... once for a threshold');

    $ask->();
    @posted = posted($case, @posted + 1);
    is(decode_json($posted[-1]{body})->{percent}, 80, '... the next one');

    $gw->finish;
}

# charged by others, since their worker was killed, or ends at once

{
    my $gw = AI::Gateway->new(workers => 2, conf => <<"END");
events {}
http {
    ai_provider p { dialect openai; endpoint @{[ $p->url ]}; key none; }
    ai_model m { target p/hang; }
    ai_quota_zone \$http_x_key zone=q tokens=400/day requests=1k/day
                  alert=50%,90%;
    ai_alert_webhook @{[ $hook->url ]}/killed;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { ai_quota q; add_header X-Pid \$pid; ai_pass model; }
        location = /limits { ai_limit_view; }
    }
}
END
    $gw->allow(qr/of the quota of|exited on signal 9|have not ended properly/);
    $gw->start;

    my @held = map {
        $gw->client->open('/v1/chat/completions',
                          chat('m', max_tokens => 1000),
                          headers => [ 'X-Key' => $_ ]);
    } qw(a b);

    ok($gw->wait_for(sub {
        $gw->client->get('/limits')->json->{zones}[0]{holds} == 2
    }, 5), 'two are running');
    is(scalar(() = $gw->error_log =~ /of the quota/g), 0, '... no alert');

    kill 9, $gw->workers;

    my @posted = map { decode_json($_->{body}) } posted('killed', 2);
    is(join(' ', sort map { "$_->{key}:$_->{meter}:$_->{percent}" } @posted),
       'a:tokens:50 b:tokens:50', 'killed: posted');
    cmp_ok($posted[0]{used}, '>=', 256, '... what it held');
    is($posted[0]{limit}, 400, '... of the limit');
    cmp_ok($posted[0]{reset}, '>', time(), '... reset');

    my @lines = $gw->error_log =~ /key "\w": 50% of the quota of tokens is/g;
    is(scalar @lines, 2, '... a line for each');

    $_->abort for @held;

    my $last = $gw->client->open('/v1/chat/completions',
                                 chat('m', max_tokens => 1000),
                                 headers => [ 'X-Key' => 'c' ]);
    ok($gw->wait_for(sub {
        $gw->client->get('/limits')->json->{zones}[0]{holds} == 1
    }, 5), 'one is running');

    kill 'TERM', $gw->master;
    ok($gw->wait_for(sub {
        $gw->error_log =~ /key "c": 50% of the quota of tokens is/
    }, 5), 'a worker that ends at once: a line');
    $last->abort;
    $gw->finish;
}

done_testing();
