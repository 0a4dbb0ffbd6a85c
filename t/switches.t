#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# switches.json: who and what is refused, drained, cut or sent elsewhere, in
# all workers, without a reload; temporary raises of limits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit qw(provider chat checked);
use AI::Live qw(key record json within);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits or of keys'
    if AI::Gateway::modules()
       && 2 != grep { /ratelimit|auth/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;
my $workers = 4;
my $slow = checked() ? 5 : 1;

sub conf {
    return <<"END";
events { }
http {
    log_format x escape=json '{"uri":"\$request_uri","status":"\$status","switch":"\$ai_switch","model":"\$ai_model","error":"\$ai_error","target":"\$ai_target","pid":"\$pid"}';
    access_log %%DIR%%/access.log x;
    ai_data %%DIR%%/data interval=50ms size=4m;
    ai_provider one { dialect openai; endpoint $url; key none; }
    ai_provider two { dialect openai; endpoint $url; key none; }
    ai_model m    { target one/x; }
    ai_model n    { target one/n:1; }
    ai_model both { target one/x; fallback two/n:2; }
    ai_model slow { target one/pace:100+n:120; }
    ai_model late { target one/wait:3000; }
    ai_model late2 { target one/wait:3000; fallback two/n:3; }
    ai_model long { target one/pace:50+n:60; }
    ai_alias alias m;
    ai_limit_zone \$ai_key_id zone=few requests=2/hour;
    ai_limit_zone \$ai_key_id zone=other tokens=1k/m;
    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        keepalive_requests 100000;
        location / {
            ai_auth key;
            add_header X-Pid \$pid always;
            ai_pass model direct=on;
        }
        location = /generation {
            return 200 \$ai_data_switches_generation;
        }
        location /few/ { ai_auth key; ai_limit few; ai_pass model; }
        location /open/ { ai_pass model; }
    }
}
END
}

sub start {
    my ($switches, %opt) = @_;
    my $gw = AI::Gateway->new(workers => $opt{workers} // $workers);

    mkdir "$gw->{dir}/data";
    $gw->write_file('data/keys.json',
                    json([ record(1, tenant => 'acme'),
                           record(2, tenant => 'other') ]));
    $gw->write_file('data/switches.json', json($switches)) if $switches;
    $gw->write_conf(conf());

    return $opt{start} // 1 ? $gw->start : $gw;
}

# mistakes

sub bad {
    my ($name, $record, $why) = @_;
    my $gw = start([ $record ], start => 0);
    my ($rc, $out) = $gw->conf_test;

    isnt($rc, 0, "$name: refused");
    like($out, qr/switches\.json:1: .*$why/, "$name: why");
}

my @a = (action => 'deny');

bad('no scope', { @a }, qr/no "scope"/);
bad('scope', { scope => 'tenants', name => 'x', @a },
    qr/unknown scope "tenants", did you mean "tenant"\?/);
bad('no name', { scope => 'key', @a }, qr/no "name"/);
bad('a name of all', { scope => 'all', name => 'x', @a },
    qr/"name" is of no use here/);
bad('no action', { scope => 'all' }, qr/no "action"/);
bad('action', { scope => 'all', action => 'denny' },
    qr/unknown action "denny", did you mean "deny"\?/);
bad('member', { scope => 'all', @a, texte => 'x' },
    qr/unknown member "texte", did you mean "text"\?/);
bad('text', { scope => 'all', @a, text => 5 }, qr/"text" must be a string/);
bad('status', { scope => 'all', @a, status => 200 },
    qr/"status" must be a number from 400 to 599/);
bad('until', { scope => 'all', @a, until => 'tomorrow' },
    qr/"until" must be a time like/);
bad('reroute', { scope => 'model', name => 'm', action => 'reroute' },
    qr/no "model" to reroute to/);
bad('reroute of a provider', { scope => 'provider', name => 'one',
    action => 'reroute', model => 'm' }, qr/a provider is not rerouted/);
bad('model', { scope => 'all', @a, model => 'm' },
    qr/"model" is of no use here/);
bad('feature', { scope => 'feature', name => 'tool', @a },
    qr/unknown feature "tool", did you mean "tools"\?/);
bad('no raise', { scope => 'zone', name => 'few', key => 'k' },
    qr/no "raise"/);
bad('no key', { scope => 'zone', name => 'few', raise => {} }, qr/no "key"/);
bad('zone', { scope => 'zone', name => 'fiw', key => 'k', raise => {} },
    qr/unknown zone "fiw", did you mean "few"\?/);
bad('raise', { scope => 'zone', name => 'few', key => 'k',
    raise => { request => 5 } },
    qr/unknown limit "request" in "raise", did you mean "requests"\?/);
bad('not limited', { scope => 'zone', name => 'few', key => 'k',
    raise => { tokens => '5/m' } }, qr/does not limit "tokens"/);
bad('unit', { scope => 'zone', name => 'few', key => 'k',
    raise => { requests => '5/m' } }, qr/its unit of time is not that/);
bad('amount', { scope => 'zone', name => 'few', key => 'k',
    raise => { requests => 'x/m' } }, qr/"requests" is "x\/m"/);

{
    my $gw = start([ ({ scope => 'all', @a }) x 2 ], start => 0);
    my (undef, $out) = $gw->conf_test;
    like($out, qr/"scope" and "name" are there twice/, 'twice');
}

# effects

my $gw = start(undef);
my %conn;
my $n = 0;

sub generation { $gw->client->get('/generation')->{body} }

sub put {
    my ($check, @switches) = @_;

    my $old = generation();

    $gw->write_file('data/.new', json(\@switches));
    rename "$gw->{dir}/data/.new", "$gw->{dir}/data/switches.json" or die;

    my $time = within(sub { generation() ne $old && $check->() }, 5);

    ok(defined $time && $time < 3 * $slow, 'in force soon');
    note(sprintf '%.0f ms', $time * 1000) if defined $time;
}

sub ask {
    my ($model, %opt) = @_;
    my $where = $opt{where} // '/v1/chat/completions';

    return ($opt{on} // $gw->client)->post($where . '?' . ++$n,
        chat($model, %{ $opt{body} // {} }),
        headers => [ Authorization => 'Bearer ' . key($opt{key} // 1) ],
        timeout => 20);
}

sub logged {
    my ($line);

    $gw->wait_for(sub {
        ($line) = grep { $_->{uri} =~ /\?$n$/ }
                  map { JSON::PP->new->decode($_) } split /\n/,
                  $gw->read_file('access.log');
        return $line;
    }, 5);

    return $line;
}

# all workers say so

sub everywhere {
    my ($status, $model, %opt) = @_;
    my %seen;

    for (1 .. 60) {
        my $r = ask($model, %opt);
        return 0 if $r->{status} != $status;
        $seen{$r->{headers}{'x-pid'} // ''} = 1;
        last if keys %seen == $workers;
    }

    return 1;
}

sub is_refused {
    my ($name, $status, $text, $switch, $model, %opt) = @_;
    my $r = ask($model, %opt);

    is($r->{status}, $status, "$name: status") or diag($r->{body});
    like($r->{body}, $text, '... text');
    is(logged()->{switch}, $switch, '... $ai_switch');

    return $r;
}

sub passes {
    my ($name, $model, %opt) = @_;

    is(ask($model, %opt)->{status}, 200, "$name passes");
}

passes('without a file', 'm');
is(logged()->{switch}, '', '... $ai_switch');

# deny

put(sub { everywhere(403, 'm') },
    { scope => 'all', @a, text => "closed \"today\"\n", comment => 'x' });

my $r = is_refused('all', 403, qr/closed \\"today\\"\\n/, 'all/deny', 'm');
is(eval { $r->json->{error}{code} }, 'permission_denied', '... dialect');

put(sub { everywhere(403, 'm') && everywhere(200, 'm', key => 2) },
    { scope => 'tenant', name => 'acme', @a });
is_refused('tenant', 403, qr/switched off by the operator/,
           'tenant:acme/deny', 'm');
passes('another tenant', 'm', key => 2);
passes('nobody', 'm', where => '/open/v1/chat/completions');

put(sub { everywhere(402, 'm', key => 2) && everywhere(200, 'm') },
    { scope => 'key', name => record(2)->{id}, @a, status => 402 });
passes('another key', 'm');

put(sub { everywhere(403, 'm') && everywhere(200, 'm', key => 2) },
    { scope => 'tenant', name => 'ac*', @a });
passes('a pattern: another', 'm', key => 2);

put(sub { everywhere(403, 'm') && everywhere(200, 'n') },
    { scope => 'model', name => 'm', @a, text => 'no more m' });
is_refused('model', 403, qr/no more m/, 'model:m/deny', 'm');
is_refused('alias', 403, qr/no more m/, 'model:m/deny', 'alias');

$r = $gw->client->get('/v1/models', headers =>
    [ Authorization => 'Bearer ' . key(1) ]);
unlike($r->{body}, qr/"m"/, '... is not listed');
like($r->{body}, qr/"n"/, '... another one is');

put(sub { everywhere(403, 'm') && everywhere(200, 'both') },
    { scope => 'provider', name => 'one', @a });
is_refused('provider', 403, qr/switched off/, 'provider:one/deny', 'm');
passes('a fallback', 'both');
is(logged()->{target}, 'two/n:2', '... its target');

# features

my %ask = (
    stream => [ { stream => JSON::PP::true } ],
    tools => [ { tools => [ { type => 'function', function => {
                 name => 'f', parameters => { type => 'object' } } } ] },
               { tools => [] } ],
    images => [ { messages => [ { role => 'user', content => [
                  { type => 'image_url', image_url => { url => 'http://x/' } }
                ] } ] } ],
    audio => [ { audio => { voice => 'x' } } ],
    chat => [ {} ],
);

for my $feature (sort keys %ask) {
    my ($with, $without) = @{ $ask{$feature} };

    put(sub { everywhere(403, 'm', body => $with) },
        { scope => 'feature', name => $feature, @a });
    is_refused($feature, 403, qr/switched off/, "feature:$feature/deny", 'm',
               body => $with);
    passes("not $feature", 'm', body => $without // {}) if $feature ne 'chat';
}

# drain, until

my $until = time() + 100;

put(sub { everywhere(503, 'm') },
    { scope => 'model', name => 'n', action => 'drain' },
    { scope => 'all', action => 'drain', until => int $until });
$r = is_refused('drain', 503, qr/try again later/, 'all/drain', 'm');
ok(($r->{headers}{'retry-after'} // 0) > 90, '... retry-after');

put(sub { everywhere(200, 'm') },
    { scope => 'all', action => 'drain', until => '2020-01-01T00:00:00Z' });
passes('until a time that is over', 'm');

# reroute

put(sub { (ask('m'))->{status} == 200 && logged()->{model} eq 'n' },
    { scope => 'model', name => 'm', action => 'reroute', model => 'n' });
passes('reroute of a model', 'alias');
is(join(' ', @{ logged() }{qw(model target switch)}),
   'n one/n:1 model:m/reroute', '... where');

put(sub { (ask('m'))->{status} == 200 && logged()->{model} eq 'both' },
    { scope => 'tenant', name => 'acme', action => 'reroute',
      model => 'both' },
    { scope => 'model', name => 'n', @a });
is(logged()->{switch}, 'tenant:acme/reroute', 'reroute of a tenant');

put(sub { ask('m')->{status} == 403 },
    { scope => 'model', name => 'm', action => 'reroute', model => 'n' },
    { scope => 'model', name => 'n', @a });
is_refused('reroute to what is denied', 403, qr/switched off/,
           'model:n/deny', 'm');

put(sub { ask('m')->{status} == 404 },
    { scope => 'model', name => 'm', action => 'reroute', model => 'none' });
is_refused('reroute to nothing', 404, qr/\\"none\\" does not exist/,
           'model:m/reroute', 'm');

put(sub { ask('m')->{status} == 200 });

# drain lets go on, cut does not; times from when the file is there

sub running {
    my ($model, $what, $switch, %opt) = @_;
    my $body = { stream => JSON::PP::true, %{ $opt{body} // {} } };

    pipe my $in, my $out or die;

    my $pid = fork // die;

    if ($pid == 0) {
        close $in;
        my $r = ask($model, body => $body, %opt);

        print {$out} JSON::PP->new->encode({
            status => $r->{status}, body => $r->{body}, time => time()
        });
        close $out;

        require POSIX;
        POSIX::_exit(0);
    }

    close $out;

    # it has begun
    sleep(1);

    put(sub { $opt{refused} // ask('m')->{status} != 200 }, $switch);

    my $now = time();

    local $/;
    my $told = JSON::PP->new->decode(scalar <$in>);

    waitpid $pid, 0;

    $told->{late} = $told->{time} - $now;

    put(sub { everywhere(200, 'm') });

    return $told;
}

my $told = running('long', 'drain', { scope => 'all', action => 'drain' });
like($told->{body}, qr/"finish_reason":"stop".*\[DONE\]/s,
     'drain: what runs goes on');

$told = running('slow', 'cut', { scope => 'all', action => 'cut',
                                 text => 'stop it' });
ok($told->{late} < 2 * $slow, 'cut: at once') or diag($told->{late});
note(sprintf 'cut after %.0f ms', $told->{late} * 1000);
like($told->{body}, qr/"content":"w1/, '... had begun');
like($told->{body}, qr/^data: \{"error":\{.*stop it/m, '... error event');
unlike($told->{body}, qr/\[DONE\]/, '... is its end');

$told = running('slow', 'cut', { scope => 'provider', name => 'one',
                                 action => 'cut' });
ok($told->{late} < 2 * $slow, 'cut of a provider: at once');
like($told->{body}, qr/^data: \{"error":/m, '... error event');

$told = running('slow', 'cut', { scope => 'feature', name => 'stream',
                                 action => 'cut' }, refused => 1);
like($told->{body}, qr/^data: \{"error":/m, 'cut of a feature');

$told = running('late', 'cut', { scope => 'tenant', name => 'acme',
                                 action => 'cut', status => 500 });
is($told->{status}, 500, 'cut before the answer: status');
ok($told->{late} < 2 * $slow, '... at once');

$gw->allow(qr/attempt 1, "one/);
$told = running('late2', 'cut', { scope => 'provider', name => 'one',
                                  action => 'cut' });
is($told->{status}, 200, 'cut of a provider before the answer');
like($told->{body}, qr/w3/, '... its fallback serves');

# Anthropic's dialect

{
    my $key = key(1);

    put(sub { ask('m')->{status} == 503 },
        { scope => 'all', action => 'drain', text => 'in a minute' });

    my $r = $gw->client->post('/v1/messages', {
        model => 'm', max_tokens => 5,
        messages => [ { role => 'user', content => 'x' } ]
    }, headers => [ 'x-api-key' => $key ]);

    is(eval { $r->json->{error}{type} }, 'overloaded_error',
       'dialect of Anthropic');
    is(eval { $r->json->{error}{message} }, 'in a minute', '... text');
}

# raises

my %few = (where => '/few/v1/chat/completions');

put(sub { ask('m')->{status} == 200 });

is(join(' ', map { ask('m', %few)->{status} } 1 .. 3), '200 200 429',
   'a limit');

put(sub { ask('m', %few)->{status} == 200 },
    { scope => 'zone', name => 'few', key => record(1)->{id},
      raise => { requests => '5/hour' }, until => int(time() + 60) });
is(join(' ', map { ask('m', %few)->{status} } 1 .. 3), '200 200 429',
   '... is raised');
is(join(' ', map { ask('m', %few, key => 2)->{status} } 1 .. 3),
   '200 200 429', '... for one key');

# a broken file changes nothing

$gw->allow(qr/ai data/);
$gw->write_file('data/.new', '[{"scope":"all"}]');
rename "$gw->{dir}/data/.new", "$gw->{dir}/data/switches.json" or die;

ok($gw->wait_log(qr/switches\.json:1: .*no "action"/), 'a broken file');
passes('what was before', 'm');

$gw->finish;

done_testing();
