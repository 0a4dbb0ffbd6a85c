#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_cache_purge, and purges in live data: in force in every worker, for what
# is stored and for what is being made.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Find ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;
my $slow = AI::Kit::checked() ? 5 : 1;

# configurations that are refused

sub refused {
    my ($conf, $like, $name, %files) = @_;
    my $gw = AI::Gateway->new(conf => <<"END", files => \%files);
events { }
http {
    ai_cache_zone answers 1m;
    $conf
}
END
    my ($rc, $said) = $gw->conf_test;
    ok $rc, "$name: refused";
    like $said, $like, '... as it says';
}

refused('server { location / { ai_cache_purge answer; } }',
        qr/"ai_cache_purge": no cache zone "answer", did you mean "answers"\? in .*nginx.conf:4/,
        'a zone that is none');
refused('server { location / { ai_cache_purge answers; ai_cache_purge answers;
         } }', qr/"ai_cache_purge" directive is duplicate in .*nginx.conf:4/,
        'twice');
refused('server { location / { ai_cache_purge; } }',
        qr/invalid number of arguments in "ai_cache_purge"/, 'no zone');
refused('server { ai_cache_purge answers; }',
        qr/"ai_cache_purge" directive is not allowed here/, 'no location');

# records of live data

sub live {
    my ($text) = @_;
    my $gw = AI::Gateway->new(conf => <<'END');
events { }
http {
    ai_cache_zone answers 1m;
    ai_data %%DIR%%/live;
}
END
    mkdir $gw->dir . '/live';
    $gw->write_file('live/cache.json', $text);
    return $gw->conf_test;
}

for ([ '{"zone":"other","all":true,"before":1}', qr/no cache zone "other"/ ],
     [ '{"all":true,"before":1}', qr/no "zone"/ ],
     [ '{"zone":"answers","all":true}', qr/no "before"/ ],
     [ '{"zone":"answers","before":1}', qr/must have one of "all", "scope"/ ],
     [ '{"zone":"answers","before":1,"all":false}', qr/"all" must be true/ ],
     [ '{"zone":"answers","before":"now","all":true}',
       qr/"before" must be a time like/ ],
     [ '{"zone":"answers","before":1,"scope":"a","tag":"b"}',
       qr/must have one of/ ],
     [ '{"zone":"answers","before":1,"skope":"a"}',
       qr/unknown member "skope", did you mean "scope"\?/ ],
     [ '{"zone":"answers","before":1,"tag":"a","tag":"a"}',
       qr/duplicate member "tag"/ ],
     [ '{"zone":"answers","before":1,"tag":7}', qr/"tag" must be a string/ ],
     [ '{"zone":"answers","before":1,"tag":""}',
       qr/"tag" must have from 1 to 1024 bytes/ ],
     [ '{"zone":"answers","before":1,"key":"12"}',
       qr/"key" must be 64 hexadecimal digits/ ],
     [ '[' . join(',', ('{"zone":"answers","before":1,"tag":"a"}') x 2) . ']',
       qr/this purge is there twice/ ],
     [ '[' . join(',', map { qq({"zone":"answers","before":1,"tag":"$_"}) }
                       1 .. 257) . ']', qr/there are more than 256 purges/ ])
{
    my ($text, $like) = @$_;
    my ($rc, $said) = live($text);
    ok $rc && $said =~ $like, substr("live data: $text", 0, 70)
        or diag $said;
}

my ($rc, $said) = live('[{"zone":"answers","before":"2026-11-20T10:00:00Z",'
                       . '"scope":"acme","comment":"as asked"},'
                       . '{"zone":"answers","before":1,"all":true}]');
is $rc, 0, 'good records' or diag $said;

# a gateway with three workers

my $gw = AI::Gateway->new(workers => 3, conf => <<"END");
events { }
http {
    ai_data %%DIR%%/live interval=50ms;
    ai_cache_zone answers 2m;
    ai_cache_zone others 2m;
    ai_provider p { dialect openai; endpoint $url; key none; }

    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;
        add_header x-pid \$pid always;
        ai_cache_any on;

        location /v1/ {
            ai_pass model direct=on;
            ai_cache answers ttl=1h scope=\$http_x_scope tag=\$http_x_tag;
        }

        location /others/ {
            ai_pass model direct=on;
            ai_cache others ttl=1h scope=global;
        }

        location = /cache { ai_cache_purge answers; }
        location = /others { ai_cache_purge others; }
    }
}
END

mkdir $gw->dir . '/live';
$gw->start;

sub ask {
    my ($q, %opt) = @_;
    my $body = chat($opt{model} // 'p/n:3');

    $body->{messages}[0]{content} = "question $q";

    my @headers = ('X-Scope' => $opt{scope} // 'a');
    push @headers, 'X-Tag' => $opt{tag} if $opt{tag};

    return $gw->client->post($opt{path} // '/v1/chat/completions', $body,
                             headers => \@headers);
}

# HIT, MISS, ...; an answer is told before it is stored

sub how {
    my $how = ask(@_)->{headers}{'x-ai-cache'} // 'none';
    return $how eq 'COALESCED' ? 'HIT' : $how;
}

# of all workers, each asked at least once: HIT, MISS, or both

sub everywhere {
    my ($q, %opt) = @_;
    my (%pid, %how);

    for (1 .. 200) {
        my $r = ask($q, %opt);
        my $cache = $r->{headers}{'x-ai-cache'} // 'none';
        $how{ $cache eq 'COALESCED' ? 'HIT' : $cache } = 1;
        $pid{ $r->{headers}{'x-pid'} } = 1;
        last if keys %pid == 3;
    }

    return join ' ', sort keys %how;
}

sub purge {
    my ($body, $path) = @_;
    return $gw->client->post($path // '/cache', $body);
}

# GET

is how(1), 'MISS', 'a question';
is everywhere(1), 'HIT', 'again';
my $r = $gw->client->get('/cache');
is $r->{status}, 200, 'figures';
is $r->{headers}{'content-type'}, 'application/json', 'JSON';
is $r->{headers}{'cache-control'}, 'no-store', 'not to be kept';
my $f = $r->json;
is $f->{zone}, 'answers', 'its zone';
is $f->{memory}{entries}, 1, 'one entry';
cmp_ok $f->{memory}{hits}, '>=', 3, 'hits';
cmp_ok $f->{memory}{used}, '>=', 1024, 'memory in use';
cmp_ok $f->{memory}{size}, '>', 1024 * 1024, 'of that there is';
is $f->{purges}, 0, 'no purge';
is $f->{flights}{running}, 0, 'nothing is being made';
ok !exists $f->{disk} && !exists $f->{redis}, 'no other tier';
is $gw->client->get('/others')->json->{memory}{entries}, 0,
    'another zone has its own';

# what is refused

for ([ 'PUT', '{"all":true}', 405 ], [ 'DELETE', '', 405 ],
     [ 'POST', '', 400 ], [ 'POST', '{', 400 ], [ 'POST', '[]', 400 ],
     [ 'POST', '{}', 400, qr/must have one of/ ],
     [ 'POST', '{"all":1}', 400, qr/"all" must be true/ ],
     [ 'POST', '{"all":true,"scope":"a"}', 400, qr/must have one of/ ],
     [ 'POST', '{"skope":"a"}', 400, qr/did you mean "scope"/ ],
     [ 'POST', '{"zone":"answers","all":true}', 400, qr/unknown member/ ],
     [ 'POST', '{"key":"zz"}', 400, qr/64 hexadecimal digits/ ],
     [ 'POST', '{"scope":"' . 'x' x 9000 . '"}', 413, qr/too large/ ],
     [ 'POST', '{"scope":"' . 'x' x 100000 . '"}', 413, qr/too large/ ])
{
    my ($method, $body, $status, $like) = @$_;
    my $r = $gw->client->request($method, '/cache', $body,
                        headers => [ 'Content-Type' => 'application/json' ]);
    is $r->{status}, $status, substr("$method $body", 0, 50);
    like eval { $r->json->{error} } // '', $like, '... and why' if $like;
}

is how(1), 'HIT', 'nothing was purged by that';

# kinds

sub fill {
    my %q = @_;

    for (sort keys %q) {
        my ($scope, $tag, $model) = @{ $q{$_} };
        ask($_, scope => $scope, tag => $tag, model => $model);
    }
}

my %q = (a => [ 'one', 'x', 'p/n:3' ], b => [ 'two', 'x', 'p/n:3' ],
         c => [ 'one', 'y', 'p/n:3' ], d => [ 'one', 'y', 'p/n:4' ],
         e => [ 'two', undef, 'p/n:4' ]);

# those of them that are there, in every worker

sub there {
    return join '', grep {
        my ($scope, $tag, $model) = @{ $q{$_} };
        everywhere($_, scope => $scope, tag => $tag, model => $model) eq 'HIT';
    } sort keys %q;
}

for ([ { scope => 'one' }, 'be', 'by scope' ],
     [ { tag => 'x' }, 'cde', 'by tag' ],
     [ { model => 'p/n:4' }, 'abc', 'by model' ],
     [ { scope => 'three' }, 'abcde', 'by another scope' ],
     [ { key => '0' x 64 }, 'abcde', 'by another key' ],
     [ { all => JSON::PP::true() }, '', 'all' ])
{
    my ($what, $left, $name) = @$_;

    fill(%q);
    $r = purge($what);
    is $r->{status}, 200, "purge $name";
    is_deeply $r->json->{purged}, $what, '... as it says';
    cmp_ok abs($r->json->{before_ms} / 1000 - time()), '<', 5 * $slow,
        '... until now';
    is there(), $left, '... what is left';
}

fill(%q);
is there(), 'abcde', 'what is asked for later is stored again';
ok $gw->wait_for(sub {
    $gw->client->get('/cache')->json->{memory}{purged} > 5
}, 10 * $slow), 'memory is given back';
is how('o', path => '/others/chat/completions'), 'MISS', 'another zone';
purge({ all => JSON::PP::true() });
is how('o', path => '/others/chat/completions'), 'HIT',
    '... is not concerned';

# what is being made

for my $late (0, 1) {
    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        ask("running $late", model => 'p/wait:2000');
        POSIX::_exit(0);
    }

    $gw->wait_for(sub {
        $gw->client->get('/cache')->json->{flights}{running}
    }, 5 * $slow);
    purge({ scope => 'a' });

    # what is asked for in the same millisecond is purged as well
    sleep 0.01;

    if ($late) {
        my $r = ask("running $late", model => 'p/wait:2000');
        is $r->{headers}{'x-ai-cache'}, 'MISS',
            'nobody joins what was begun before a purge';
    }

    waitpid $pid, 0;
    is how("running $late", model => 'p/wait:2000'), $late ? 'HIT' : 'MISS',
        $late ? 'the second one is stored' : 'nor is it stored';
}

# live data

is how('live'), 'MISS', 'a question';
is everywhere('live'), 'HIT', 'stored';
sleep 1.1;

my $now = POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime);
$gw->write_file('live/cache.json',
                qq([{"zone":"answers","scope":"a","before":"$now"}]));
my $start = time();
ok $gw->wait_for(sub { how('live') ne 'HIT' }),
    'a record of live data is in force';
cmp_ok time() - $start, '<', 3 * $slow, '... soon';
sleep 0.3;
is everywhere('live'), 'HIT', 'what is asked for later is stored';
$gw->write_file('live/cache.json', '[]');
sleep 0.5;
is everywhere('live'), 'HIT', 'no record purges nothing';
$gw->write_file('live/cache.json', '[{"zone":"nothing"}]');
ok $gw->wait_log(qr/cache.json.*must have one of/), 'a bad record is told';
is how('live'), 'HIT', '... and purges nothing';

# many

my $bad = 0;

for (1 .. 300) {
    $bad++ if purge({ tag => "tag $_" })->{status} != 200;
}

is $bad, 0, '300 purges';
cmp_ok $gw->client->get('/cache')->json->{purges}, '<=', 257,
    'are at most 257 rules';
sleep 0.01;
is how('many'), 'MISS', 'a question';
is how('many'), 'HIT', '... is stored';

# a reload

is how('reload', tag => 'r'), 'MISS', 'a question';
purge({ tag => 'r' });
ok $gw->reload, 'reload';
is how('reload', tag => 'r'), 'MISS', 'a purge is in force after a reload';
is everywhere('reload', tag => 'r'), 'HIT', 'and what was asked for later';

done_testing();
