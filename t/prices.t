#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Prices: of the model's block, of prices.json, by name and by pattern; what a
# request costs, and that it is charged what it was told at its admission.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit;
use AI::Live qw(json within);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

sub conf {
    my ($models, $server) = @_;

    return <<"END";
events { }
http {
    log_format x escape=json '{"uri":"\$request_uri","status":"\$status","cost":"\$ai_cost","version":"\$ai_price_version","target":"\$ai_target"}';
    access_log %%DIR%%/access.log x;
    ai_data %%DIR%%/data interval=50ms size=8m;
    ai_provider one { dialect openai; endpoint $url; key none; }
    ai_provider two { dialect openai; endpoint $url; key none; }
    ai_provider text { dialect static; text "made here"; }
    $models
    server { listen 127.0.0.1:%%PORT_0%%; $server }
}
END
}

# what is said to a file

sub start {
    my ($file, $models, $server, %opt) = @_;
    my $gw = AI::Gateway->new(workers => $opt{workers} // 2);

    mkdir "$gw->{dir}/data";
    $gw->write_file('data/prices.json', ref $file ? json($file) : $file);
    $gw->write_conf(conf($models, $server));

    return $opt{start} // 1 ? $gw->start : $gw;
}

sub bad {
    my ($name, $record, $why) = @_;
    my $gw = start([ $record ], '', '', start => 0);
    my ($rc, $out) = $gw->conf_test;

    isnt($rc, 0, "$name: refused");
    like($out, qr/prices\.json:1: .*$why/, "$name: why");
}

my %good = (input => 1, output => 2);

bad('no model', { %good }, qr/no "model"/);
bad('no input', { model => 'm', output => 1 }, qr/record "m": no "input"/);
bad('unknown', { model => 'm', %good, cache_writ => 1 },
    qr/unknown member "cache_writ", did you mean "cache_write"\?/);
bad('text', { model => 'm', %good, input => '1' },
    qr/"input" must be a number/);
bad('currency', { model => 'm', %good, currency => 'EUR' },
    qr/"currency" must be "USD"/);

{
    my $gw = start([ { model => 'm', %good }, { model => 'm', %good } ], '',
                   '', start => 0);
    my ($rc, $out) = $gw->conf_test;

    isnt($rc, 0, 'twice: refused');
    like($out, qr/the "model" is there twice/, 'twice: why');
}

# of the model's block

sub block {
    my ($text) = @_;
    my $gw = start([], "ai_model m { target one/x; price $text; }", '',
                   start => 0);
    my (undef, $out) = $gw->conf_test;

    return $out;
}

like(block('in=1 cached=1'), qr/"price" needs both in= and out=/, 'price: no out=');
like(block('in=1 out=1 image=x'), qr/a price is USD/, 'price: nonsense');
like(block('in=1 out=1 in=2'), qr/each once/, 'price: twice');
is(block('in=1 out=1 cached=1 cache_write=1 cache_write_1h=2 reasoning=3 '
           . 'audio_in=4 audio_out=5 request=0.01 image=0.02'),
     '', 'price: all of them');

# effects; 1000 tokens in, 400 of them cached, 500 out, 100 of them reasoning

my $u = 'usage:1000.500.400.100';

sub p { return { model => $_[0], input => $_[1], output => 0, @_[2 .. $#_] } }

my $file = [
    p("one/$u", 1, output => 10, cached => 0.1, reasoning => 20,
      version => 'v-exact'),
    p("$u+n:1", 2), p("two/$u+n:1", 3),
    p('one/usage*', 4), p('*', 5, version => 'any'), p('one/usage:1000.5*', 6),
    p("usage:300000.1+n:2", 1, above => { 200000 => { input => 2 } }),
    p("$u+n:3", 0, request => 0.25), p("$u+n:4", 0, image => 0.5),
];

my $gw = start($file, <<"END", <<'END2');
    ai_model exact   { target one/$u; }
    ai_model bare    { target one/$u+n:1; }
    ai_model own     { target two/$u+n:1; }
    ai_model pattern { target two/$u+n:9; }
    ai_model longest { target one/$u+n:9; }
    ai_model block   { target one/$u; price in=7 out=0; }
    ai_model tier    { target one/usage:300000.1+n:2; }
    ai_model request { target one/$u+n:3; }
    ai_model image   { target one/$u+n:4; }
    ai_model made    { target text/x; }
    ai_model failed  { target one/status:500; retry off; }
    ai_model other   { target one/status:500; fallback two/$u+n:1; retry off; }
    ai_model slow    { target one/$u+wait:1500; }
END
    location / { ai_headers cost; ai_pass model direct=on; }
    location /no/ { ai_pass model; }
END2

my $n = 0;

sub asked {
    my ($model, %opt) = @_;
    my $where = $opt{where} // '/v1/chat/completions';

    $n++;
    my $r = $gw->client->post("$where?$n", chat($model, %{ $opt{body} // {} }),
                              headers => $opt{headers} // []);
    my ($log) = grep { $_->{uri} =~ /\?$n$/ } logs();

    return ($r, $log);
}

sub logs {
    my @lines;

    $gw->wait_for(sub {
        @lines = map { JSON::PP->new->decode($_) } split /\n/,
                 $gw->read_file('access.log');
        return grep { $_->{uri} =~ /\?$n$/ } @lines;
    }, 5);

    return @lines;
}

sub costs {
    my ($model, $cost, $version, %opt) = @_;
    my ($r, $log) = asked($model, %opt);

    is($log->{cost}, $cost, "$model: cost")
        or diag(explain([ $r->{status}, $r->{body} ]));
    is($log->{version}, $version, '... version') if defined $version;
    is($r->{headers}{'x-ai-cost'}, $cost || undef, '... header')
        if !$opt{where};
}

# 600 * 1 + 400 * 0.1 + 400 * 10 + 100 * 20 millionths
costs('exact', '0.006640000', 'v-exact');
costs('bare', '0.002000000', '');
costs('own', '0.003000000');
costs('pattern', '0.005000000', 'any');
costs('longest', '0.006000000');
costs('block', '0.007000000', 'configuration');
costs("one/$u", '0.006640000', 'v-exact');
costs("two/$u+n:7", '0.005000000', 'any');
costs('tier', '0.600000000');
costs('request', '0.250000000');
costs('made', '0.000000000', '');
costs('other', '0.003000000');
costs('failed', '');
costs('exact', '0.006640000', 'v-exact', where => '/no/v1/chat/completions');

costs('image', '1.000000000', undef, body => { messages => [
    { role => 'user', content => [
        { type => 'text', text => 'what is it?' },
        map {
            { type => 'image_url', image_url => { url => "http://x/$_" } }
        } 1, 2
    ] }
] });

# streamed

my ($r, $log) = asked('exact', body => { stream => JSON::PP::true });

is($log->{cost}, '0.006640000', 'stream: cost');
is($r->{trailers}{'x-ai-cost'}, undef, '... no trailer unless asked for');

($r, $log) = asked('exact', body => { stream => JSON::PP::true },
                   headers => [ TE => 'trailers' ]);

is($r->{headers}{trailer}, 'x-ai-cost', '... announced');
is($r->{trailers}{'x-ai-cost'}, '0.006640000', '... trailer');

# a change is in force, but not for what was admitted before

my $pid = fork // die;

if ($pid == 0) {
    $gw->client->post('/v1/chat/completions?slow', chat('slow'));
    require POSIX;
    POSIX::_exit(0);
}

ok($p->wait_log(sub { grep { $_->{body} =~ /wait:1500/ } @_ }), 'admitted');

$file->[0]{input} = 100;
$file->[4]{input} = 8;
$file->[7]{request} = 0.5;
@$file = grep { $_->{model} ne 'one/usage:1000.5*' } @$file;
$gw->write_file('data/.new', json($file));
rename "$gw->{dir}/data/.new", "$gw->{dir}/data/prices.json" or die;

ok(defined within(sub {
    4 == grep { (asked('request'))[1]{cost} eq '0.500000000' } 1 .. 4
}, 2), 'a new price is in force');

costs('exact', '0.066040000', 'v-exact');
costs('pattern', '0.008000000', 'any');
costs('longest', '0.004000000');

waitpid $pid, 0;
$n = 'slow';
($log) = grep { $_->{uri} =~ /slow/ } logs();
is($log->{cost}, '0.006000000', 'the price at admission is charged');
$n = 1000;

# a broken file changes nothing

$gw->allow(qr/ai data/);
$gw->write_file('data/.new', json([ { model => 'm' } ]));
rename "$gw->{dir}/data/.new", "$gw->{dir}/data/prices.json" or die;

ok($gw->wait_log(qr/prices\.json:1: record "m": no "input"/),
   'a broken file is told of');
costs('exact', '0.066040000', 'v-exact');

# under a quota of money what has no price is not asked

my $q = start([ p('two/usage:10.20', 1, output => 1),
                p("two/$u", 1000, output => 2000),
                p('two/status:500', 1) ], <<"END", <<'END2');
    ai_model none  { target one/usage:10.20; }
    ai_model skip  { target one/usage:10.20; fallback two/usage:10.20; }
    ai_model fails { target two/status:500; fallback one/usage:10.20;
                     retry off; }
    ai_model dear  { target two/$u; }
    ai_quota_zone all zone=q usd=5/day;
    ai_quota_zone all zone=free usd=5/day unknown_price=allow;
END
    location / { ai_quota q; ai_pass model; }
    location /free/ { ai_quota free; ai_pass model; }
END2

$gw->finish;
$gw = $q;

($r) = asked('none');
is($r->{status}, 403, 'no price: refused');
like($r->{body}, qr/No price is known/, '... why');

($r, $log) = asked('none', where => '/free/v1/chat/completions');
is($r->{status}, 200, '... unknown_price=allow');
is($log->{cost}, '', '... no cost');

($r, $log) = asked('skip');
is("$r->{status} $log->{target}", '200 two/usage:10.20',
   'a target without a price is not asked');

($r) = asked('fails');
is($r->{status}, 500, '... nor as a fallback');
$gw->allow(qr/attempt 1/);

($r, $log) = asked('dear');
is("$r->{status} $log->{cost}", '200 2.000000000', 'price of the file');

($r) = asked('dear') for 1 .. 3;
is($r->{status}, 429, '... exhausts the quota');

$gw->finish;

done_testing();
