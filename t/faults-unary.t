#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Providers that fail while they answer a call that is not streamed, for both
# dialects of the caller, the provider and its fallback: who is rescued, what
# the others are told, who was asked how often and with what.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(sleep);

use AI::Client;
use AI::Gateway;
use AI::Provider;
use AI::Rescue;
use AI::Wellformed;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'real time' if $ENV{TEST_AI_VALGRIND};

my $own = "The first one says: d\x{e9}j\x{e0} vu \x{1f680}.";
my $other = "The second one says: \x{65e5}\x{672c}\x{8a9e}.";

# (type for OpenAI's callers, for Anthropic's) of what has no type by itself

my %types = (
    server     => [ 'server_error', 'api_error' ],
    timeout    => [ 'server_error', 'timeout_error' ],
    overloaded => [ 'server_error', 'overloaded_error' ],
    invalid    => [ ('invalid_request_error') x 2 ],
    too_large  => [ 'invalid_request_error', 'request_too_large' ],
    billing    => [ 'insufficient_quota', 'billing_error' ],
    permission => [ 'invalid_request_error', 'permission_error' ],
    not_found  => [ 'invalid_request_error', 'not_found_error' ],
    rate       => [ 'requests', 'rate_limit_error' ],
);

# the type that a provider of the dialect itself gives with a status

my %provider_type = (
    o => { 402 => 'insufficient_quota', 429 => 'requests' },
    a => { 401 => 'authentication_error', 402 => 'billing_error',
           403 => 'permission_error', 404 => 'not_found_error',
           413 => 'request_too_large', 429 => 'rate_limit_error',
           500 => 'api_error', 529 => 'overloaded_error' },
);

sub body {
    my ($req, $d) = @_;
    my %o = (text => $own, model => $req->{json}{model}, usage => { in => 3 });
    return $d eq 'a' ? anthropic_body(%o) : openai_body(%o);
}

sub error_body {
    my ($d, $status, $message) = @_;
    my $type = $provider_type{$d}{$status}
               // ($d eq 'a' ? 'invalid_request_error' : $status < 500
                   ? 'invalid_request_error' : 'server_error');

    return $d eq 'a'
        ? { type => 'error', error => { type => $type, message => $message } }
        : { error => { message => $message, type => $type, param => undef,
                       code => undef } };
}

sub status {
    my ($status, @headers) = @_;

    return sub {
        my ($req, $d) = @_;
        return json_script($status, error_body($d, $status, "It is $status."),
                           @headers);
    };
}

sub head {
    my ($length, @more) = @_;
    return [ 'head', 200, [ 'Content-Type' => 'application/json',
                            defined $length ? ('Content-Length' => $length)
                                            : (), @more ] ];
}

sub part {
    my ($body) = @_;
    return substr $body, 0, int(0.6 * length $body);
}

# this body instead of its own

sub instead {
    my ($body, $type) = @_;

    return sub {
        return [ [ 'head', 200, [ $type ? ('Content-Type' => $type) : (),
                                  'Content-Length' => length $body ] ],
                 [ 'chunk', $body ], [ 'end' ] ];
    };
}

# an answer whose header or framing is a speciality

sub wrapped {
    my ($make) = @_;

    return sub {
        my ($req, $d) = @_;
        return $make->(body($req, $d), $req, $d);
    };
}

# ok: the first one's answer is good; else the status and class of the error,
# which a fallback hides unless there is "seen"

my %faults = (
    healthy => { ok => 1, script => sub { $_[3]->() } },

    # the body

    cut => { status => 502, class => 'server', script => wrapped(sub {
        [ head(length $_[0]), [ 'chunk', part($_[0]) ], [ 'close' ] ] }) },

    cut_reset => { status => 502, class => 'server', script => wrapped(sub {
        [ head(length $_[0]), [ 'chunk', part($_[0]) ], [ 'sleep', 50 ],
          [ 'reset' ] ] }) },

    cut_chunk => { status => 502, class => 'server', script => wrapped(sub {
        [ head(), [ 'raw', sprintf("%x\r\n", length $_[0]) . part($_[0]) ],
          [ 'close' ] ] }) },

    cut_between_chunks => { status => 502, class => 'server',
                            script => wrapped(sub {
        [ head(), [ 'chunk', part($_[0]) ], [ 'close' ] ] }) },

    # all of the document, but not of the message
    cut_last_chunk => { status => 502, class => 'server',
                        script => wrapped(sub {
        [ head(), [ 'chunk', $_[0] ], [ 'close' ] ] }) },

    cut_unmarked => { status => 502, class => 'server', script => wrapped(sub {
        [ head(undef, 'Connection' => 'close'), [ 'chunk', part($_[0]) ],
          [ 'close' ] ] }) },

    bad_chunk => { status => 502, class => 'server', script => wrapped(sub {
        [ head(), [ 'raw', "zz\r\n$_[0]\r\n0\r\n\r\n" ], [ 'close' ] ] }) },

    stall => { status => 504, class => 'timeout', script => wrapped(sub {
        [ head(length $_[0]), [ 'stall' ] ] }) },

    stall_middle => { status => 504, class => 'timeout',
                      script => wrapped(sub {
        [ head(length $_[0]), [ 'chunk', part($_[0]) ], [ 'stall' ] ] }) },

    malformed => { status => 502, class => 'server', script => wrapped(sub {
        json_script(200, part($_[0]) . '}{') }) },

    deep => { status => 502, class => 'server', script => wrapped(sub {
        my $body = $_[0];
        my $deep = '[' x 5000 . ']' x 5000;
        $body =~ s/^\{/{"x":$deep,/;
        json_script(200, $body) }) },

    two_documents => { status => 502, class => 'server',
                       script => wrapped(sub {
        json_script(200, $_[0] . $_[0]) }) },

    empty => { status => 502, class => 'server',
               script => instead('', 'application/json') },

    no_content => { status => 502, class => 'server', script => sub {
        [ [ 'head', 204, [] ], [ 'end' ] ] } },

    array => { status => 502, class => 'server',
               script => instead('[]', 'application/json') },

    object => { status => 502, class => 'server',
                script => instead('{}', 'application/json') },

    null => { status => 502, class => 'server',
              script => instead('null', 'application/json') },

    html => { status => 502, class => 'server',
              script => instead('<html><body>Welcome</body></html>',
                                'text/html') },

    # of the other dialect

    other_dialect => { status => 502, class => 'server', script => sub {
        my ($req, $d) = @_;
        json_script(200, body($req, $d eq 'a' ? 'o' : 'a')) } },

    error_200 => { status => qr/^50/, class => 'server', script => sub {
        my ($req, $d) = @_;
        json_script(200, error_body($d, 500, 'It failed after all.')) } },

    overloaded_200 => { status => 503, class => 'overloaded', script => sub {
        my ($req, $d) = @_;
        json_script(200, $d eq 'a'
            ? error_body('a', 529, 'Overloaded')
            : { error => { message => 'Overloaded', type => 'overloaded',
                           code => 503 } }) } },

    text_plain => { ok => 1, script => wrapped(sub {
        [ [ 'head', 200, [ 'Content-Type' => 'text/plain; charset=utf-8',
                           'Content-Length' => length $_[0] ] ],
          [ 'chunk', $_[0] ], [ 'end' ] ] }) },

    no_type => { ok => 1, script => wrapped(sub {
        [ [ 'head', 200, [ 'Content-Length' => length $_[0] ] ],
          [ 'chunk', $_[0] ], [ 'end' ] ] }) },

    # a stream where none was asked for

    events => { ok => 1, script => sub { $_[3]->(stream => 1) } },

    events_cut => { status => 502, class => 'server', script => sub {
        my $s = $_[3]->(stream => 1);
        [ @$s[0 .. @$s / 2], [ 'close' ] ] } },

    # complete, though the message is not

    events_stall => { ok => 1, script => sub {
        my $s = $_[3]->(stream => 1);
        [ @$s[0 .. $#$s - 1], [ 'stall' ] ] } },

    events_close => { ok => 1, script => sub {
        my $s = $_[3]->(stream => 1);
        [ @$s[0 .. $#$s - 1], [ 'close' ] ] } },

    trailing => { ok => 1, script => wrapped(sub {
        [ head(length $_[0]), [ 'chunk', "$_[0]HTTP/1.1 200 OK\r\n\r\n" ],
          [ 'end' ] ] }) },

    trailing_chunk => { ok => 1, script => wrapped(sub {
        [ head(), [ 'raw', sprintf("%x\r\n%s\r\n0\r\n\r\nHTTP/1.1 500 No\r\n",
                                   length $_[0], $_[0]) ], [ 'stall' ] ] }) },

    unmarked => { ok => 1, script => wrapped(sub {
        [ head(undef, 'Connection' => 'close'), [ 'chunk', $_[0] ],
          [ 'close' ] ] }) },

    http10 => { ok => 1, script => wrapped(sub {
        [ [ 'raw', "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
                   . $_[0] ], [ 'close' ] ] }) },

    trailers => { ok => 1, script => wrapped(sub {
        [ head(), [ 'raw', sprintf("%x;x=y\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n",
                                   length $_[0], $_[0]) ], [ 'close' ] ] }) },

    gzip => { status => 502, class => 'server', script => wrapped(sub {
        my $z = "\x1f\x8b\x08\x00" . "\x00" x 60;
        [ head(length $z, 'Content-Encoding' => 'gzip'), [ 'chunk', $z ],
          [ 'end' ] ] }) },

    identity => { ok => 1, script => wrapped(sub {
        [ head(length $_[0], 'Content-Encoding' => 'identity'),
          [ 'chunk', $_[0] ], [ 'end' ] ] }) },

    drip => { ok => 1, script => wrapped(sub {
        my @parts = unpack '(a100)*', $_[0];
        [ head(length $_[0]),
          map({ [ 'chunk', $_ ], [ 'sleep', 500 ] } @parts), [ 'end' ] ] }) },

    bytes => { ok => 1, script => wrapped(sub {
        [ head(), map({ [ 'chunk', $_ ], [ 'sleep', 1 ] } split //, $_[0]),
          [ 'end' ] ] }) },

    # the header

    slow => { status => 504, class => 'timeout', script => wrapped(sub {
        [ [ 'sleep', 6000 ], @{ json_script(200, $_[0]) } ] }) },

    late => { ok => 1, script => wrapped(sub {
        [ [ 'sleep', 1200 ], @{ json_script(200, $_[0]) } ] }) },

    # on a kept connection nginx takes these for the end of an idle one, and
    # asks once more on a new one

    reset => { status => 502, class => 'server', again => 1,
               script => sub { [ [ 'reset' ] ] } },

    close => { status => 502, class => 'server', again => 1,
               script => sub { [ [ 'close' ] ] } },

    cut_header => { status => 502, class => 'server', again => 1,
                    script => sub {
        [ [ 'raw', "HTTP/1.1 200 OK\r\nContent-Type: appli" ],
          [ 'close' ] ] } },

    stall_header => { status => 504, class => 'timeout', script => sub {
        [ [ 'raw', "HTTP/1.1 200 OK\r\nContent-Type: appli" ],
          [ 'stall' ] ] } },

    garbage => { status => 502, class => 'server', script => sub {
        [ [ 'raw', "SSH-2.0-OpenSSH_9.2\r\n" ], [ 'stall' ] ] } },

    huge_header => { status => 502, class => 'server', script => sub {
        [ [ 'raw', "HTTP/1.1 200 OK\r\n" . 'X: ' . 'x' x 200_000 ],
          [ 'stall' ] ] } },

    bad_length => { status => 502, class => 'server', script => wrapped(sub {
        [ head('12a'), [ 'chunk', $_[0] ], [ 'close' ] ] }) },

    continue => { ok => 1, script => wrapped(sub {
        [ [ 'raw', "HTTP/1.1 100 Continue\r\n\r\n" ], [ 'sleep', 50 ],
          @{ json_script(200, $_[0]) } ] }) },

    hints => { ok => 1, script => wrapped(sub {
        [ [ 'raw', "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n"
                   . "Content-Length: 7\r\n\r\n" ],
          @{ json_script(200, $_[0]) } ] }) },

    # statuses

    map({ my $n = $_; ("redirect_$n" => {
        status => qr/^50/, class => 'server', script => sub {
            [ [ 'head', $n, [ Location => $_[0]{trap},
                              'Content-Length' => 0 ] ], [ 'end' ] ] }
    }) } 301, 302, 307, 308),

    html_502 => { status => 502, class => 'server', script => sub {
        my $body = '<html><h1>502 Bad Gateway</h1>nginx</html>';
        [ [ 'head', 502, [ 'Content-Type' => 'text/html',
                           'Content-Length' => length $body ] ],
          [ 'chunk', $body ], [ 'end' ] ] } },

    cut_error => { status => 500, class => 'server', script => sub {
        [ [ 'head', 500, [ 'Content-Length' => 900 ] ],
          [ 'chunk', '{"error":{"mess' ], [ 'close' ] ] } },

    stall_error => { status => qr/^50/, class => qr/server|timeout/,
                     script => sub {
        [ [ 'head', 500, [ 'Content-Length' => 900 ] ],
          [ 'chunk', '{"error":{"mess' ], [ 'stall' ] ] } },

    s400 => { status => 400, class => 'invalid', seen => 1,
              script => status(400) },
    s401 => { status => 502, class => 'server', script => status(401) },
    s402 => { status => 402, class => 'billing', script => status(402) },
    s403 => { status => 403, class => 'permission', script => status(403) },
    s404 => { status => 404, class => 'not_found', script => status(404) },
    s408 => { status => 408, class => 'timeout', script => status(408) },
    s409 => { status => 409, class => 'invalid', seen => 1,
              script => status(409) },
    s413 => { status => 413, class => 'too_large', seen => 1,
              script => status(413) },
    s422 => { status => 422, class => 'invalid', seen => 1,
              script => status(422) },
    s429 => { status => 429, class => 'rate', script => status(429) },
    s500 => { status => 500, class => 'server', script => status(500) },
    s502 => { status => 502, class => 'server', script => status(502) },
    s503 => { status => 503, class => 'overloaded', script => status(503) },
    s504 => { status => 504, class => 'timeout', script => status(504) },
    s529 => { status => 529, class => 'overloaded', script => status(529) },
    s599 => { status => 599, class => 'server', script => status(599) },
);

# those of retries and keys: tested by themselves below

my $good = sub { $_[3]->() };

# an error until the n-th request

sub until_nth {
    my ($n, $script) = @_;
    return sub { $_[2] < $n ? $script->(@_) : $_[3]->() };
}

my %later = (
    ra60 => { script => status(429, 'Retry-After' => 60) },
    ra60_503 => { script => status(503, 'Retry-After' => 60),
                  more => 'retry 2;' },
    ra_1 => { script => until_nth(2, status(429, 'Retry-After' => 1)) },
    ra_fraction => {
        script => until_nth(2, status(429, 'Retry-After' => '1.5')) },
    ra_ms => {
        script => until_nth(2, status(429, 'Retry-After-Ms' => 700)) },
    ra_date => { script => until_nth(2, sub {
        my $date = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time() + 2));
        status(429, 'Retry-After' => $date)->(@_) }) },
    ra_past => { script => until_nth(2, sub {
        status(429, 'Retry-After' => 'Mon, 01 Jan 2024 00:00:00 GMT')
            ->(@_) }) },
    ra_junk => { script => until_nth(2, status(429, 'Retry-After' => 'soon')),
                 more => 'retry 2 backoff=100ms..200ms;' },
    ra_minus => { script => until_nth(2, status(503, 'Retry-After' => -5)),
                  more => 'retry 2 backoff=100ms..200ms;' },
    twice => { script => until_nth(3, status(500)),
               more => 'retry 2 backoff=100ms..200ms;' },
    never => { script => status(500),
               more => 'retry 2 backoff=100ms..200ms;' },
    keys => { script => sub {
        my ($req, $d, $nth, $healthy) = @_;
        my $key = $req->{headers}{ $d eq 'o' ? 'authorization'
                                             : 'x-api-key' };
        $key =~ /k1$/ ? status(401)->(@_) : $healthy->() } },
    keys429 => { script => sub {
        my ($req, $d, $nth, $healthy) = @_;
        my $key = $req->{headers}{ $d eq 'o' ? 'authorization'
                                             : 'x-api-key' };
        $key =~ /k1$/ ? status(429, 'Retry-After' => 30)->(@_)
                      : $healthy->() } },
    keys_dead => { script => status(401) },
);

for my $f (values %faults) {
    $f->{more} = 'retry off;';
}

for my $f (values %later) {
    $f->{more} //= 'retry 1;';
}

my $x = AI::Rescue->new(faults => { %faults, %later }, text => $own,
                        fallback_text => $other);


# the matrix: those that wait cost nothing, the others run a few at a time

my (@quick, @slow, %by_fault);

for my $f (sort keys %faults) {
    my $list = $f =~ /stall|slow|late|drip|garbage|huge|trailing_chunk/
               ? \@slow : \@quick;

    for my $caller ('o', 'a') {
        push @$list, map { [ $caller, "$f-$_" ] } 'o', 'a', 'oo', 'oa', 'ao',
                                                  'aa';
    }
}

for ($x->all(150, @slow), $x->all(48, @quick)) {
    my ($f, $route) = $_->{asked} =~ /(.*)-(.*)/;
    push @{ $by_fault{$f} }, [ $route, $_ ];
}

$x->read_logs;

for my $f (sort keys %faults) {
    subtest $f => sub { check($faults{$f}, @$_) for @{ $by_fault{$f} } };
}

sub check {
    my ($fault, $route, $r) = @_;
    my $caller = $r->{caller};
    my $name = "caller $caller, providers $route";
    my $alone = length $route == 1;
    my $rescued = !$fault->{ok} && !$fault->{seen} && !$alone;
    my $n = $x->bad($r);

    if ($fault->{again}) {
        like($n, qr/^[12]$/, "$name: asked once, or twice");
    } else {
        is($n, 1, "$name: asked once");
    }

    is(scalar $x->good($r), $rescued ? 1 : 0,
       "$name: fallback " . ($rescued ? 'asked' : 'left alone'));
    ok($r->{done}, "$name: HTTP") or diag($r->{error});

    if ($fault->{ok} || $rescued) {
        is($r->{status}, 200, "$name: status") or diag($r->{body});
        is(AI::Wellformed::text($r), $rescued ? $other : $own, "$name: text")
            or diag($r->{body});
        like(AI::Wellformed::finish($r) // '', qr/^(?:stop|end_turn)$/,
             "$name: finish");
        cmp_ok(AI::Wellformed::usage($r) // 0, '>', 0, "$name: usage");
        is($r->{headers}{'x-ai-attempts'}, $rescued ? 2 : 1,
           "$name: x-ai-attempts");
        return;
    }

    my $status = AI::Rescue::status($fault->{status}, $caller, $route);

    like($r->{status}, ref $status ? $status : qr/^$status$/, "$name: status")
        or diag($r->{body});

    my $e = AI::Wellformed::error($r);
    my $top = $r->json // {};
    my @classes = ref $fault->{class} ? grep { $_ =~ $fault->{class} }
                                        keys %types : $fault->{class};
    my %want = map { $types{$_}[$caller eq 'o' ? 0 : 1] => 1 } @classes;

    # type and code of the caller's dialect are kept
    my ($d) = $route;

    $want{ $provider_type{$1}{ $r->{status} } // 'invalid_request_error' } = 1
        if $route =~ /^($caller)/ && $r->{status} < 500;

    ok($want{ $e->{type} // '' }, "$name: type")
        or diag("$r->{body}, expected " . join ' ', sort keys %want);
    ok(length($e->{message} // ''), "$name: message");
    is(join(',', sort keys %$top),
       $caller eq 'o' ? 'error,request_id' : 'error,request_id,type', "$name: form");
    unlike($r->{body}, qr/\b[sa]k-/, "$name: no key");
}


# Retry-After, tries and keys

sub gaps {
    my ($r) = @_;
    my @t = map { $_->{time} } $x->bad($r);
    return map { $t[$_] - $t[$_ - 1] } 1 .. $#t;
}

my $r = $x->ask('o', 'ra60-oo');
is(AI::Wellformed::text($r), $other, 'Retry-After: 60: rescued');
cmp_ok($r->{time}, '<', 10, '... at once');
is(scalar $x->bad($r), 1, '... asked once');

$r = $x->ask('o', 'ra60-oo');
is(AI::Wellformed::text($r), $other, '... rescued again');
is(scalar $x->bad($r), 0, '... not asked in its cooldown');

$r = $x->ask('o', 'ra60-o');
is($r->{status}, 429, 'alone: 429');
is($r->{headers}{'retry-after'}, 60, '... with its Retry-After');
$r = $x->ask('o', 'ra60-o');
is($r->{status}, 429, '... again');
is(scalar $x->bad($r), 0, '... without asking');
cmp_ok($r->{headers}{'retry-after'} // 0, '>', 10, '... and the time left');

$r = $x->ask('o', 'ra60_503-oa');
is(AI::Wellformed::text($r), $other, '503 with Retry-After: 60: rescued');
is(scalar $x->bad($r), 1, '... asked once');

# a waiting request has no fallback: the wait is short enough

my %range = (ra_1 => [ 0.95, 5 ], ra_fraction => [ 1.45, 6 ],
             ra_ms => [ 0.65, 5 ], ra_date => [ 0.8, 8 ],
             ra_past => [ 0, 5 ], ra_junk => [ 0.04, 5 ],
             ra_minus => [ 0.04, 5 ]);
my %waiting = map { $_ => $x->call('o', "$_-oo") } sort keys %range;

$x->answer($_) for values %waiting;
$x->read_logs;

for my $f (sort keys %range) {
    my ($from, $to) = @{ $range{$f} };
    my @gaps = gaps($waiting{$f});

    is(AI::Wellformed::text($waiting{$f}), $own, "$f: answered by the first");
    is(scalar @gaps, 1, "$f: asked twice");
    ok(@gaps && $gaps[0] >= $from && $gaps[0] <= $to, "$f: wait")
        or diag("@gaps, not in $from..$to");
}

$r = $x->ask('a', 'twice-ao');
is(AI::Wellformed::text($r), $own, '500 twice: answered');
is(scalar $x->bad($r), 3, '... by the third attempt');
is($r->{headers}{'x-ai-attempts'}, 3, '... which the header tells');

$r = $x->ask('a', 'never-ao');
is(AI::Wellformed::text($r), $other, '500 always: rescued');
is(scalar $x->bad($r), 3, '... after three attempts');

my @strays = $x->strays;
is_deeply(\@strays, [], 'each provider has got its own requests');

$x->{gw}->finish;


# keys: a gateway of its own, whose provider has several

my $port = $x->{bad}->port;
my $gw = AI::Gateway->new(workers => 2, ports => { 1 => $port },
                          conf => <<'END');
events {
}

http {
    ai_provider two  { dialect openai; endpoint http://127.0.0.1:%%PORT_1%%;
                       key sk-k1 sk-k2; }
    ai_provider last { dialect openai; endpoint http://127.0.0.1:%%PORT_1%%;
                       key sk-k3; }

    ai_model keys      { target two/up-keys; retry off; }
    ai_model keys429   { target two/up-keys429; retry off; }
    ai_model keys_dead { target two/up-keys_dead; retry off; }
    ai_model keys_next { target two/up-keys_dead; fallback last/up-keys;
                         retry off; }

    server {
        listen 127.0.0.1:%%PORT_0%%;

        location / { ai_pass model; }
    }
}
END

$gw->start;

sub keys_of {
    my ($model, $n) = @_;

    $x->{bad}->reset;

    my @r = map {
        $gw->client->post('/v1/chat/completions',
                          { model => $model, messages =>
                            [ { role => 'user', content => 'Hi' } ] })
    } 1 .. $n;

    my %used;
    $used{ $_->{headers}{authorization} }++ for $x->{bad}->log;

    return (\@r, $used{'Bearer sk-k1'} // 0, $used{'Bearer sk-k2'} // 0,
            $used{'Bearer sk-k3'} // 0);
}

my ($list, $k1, $k2, $k3) = keys_of('keys', 6);
is(join(' ', map { $_->{status} } @$list), '200 200 200 200 200 200',
   '401 of one key: the other one answers');
is($k1, 1, '... and the first is left alone');
is($k2, 6, '... the second has them all');

# cooldown of a key counts for all models of its provider

sub fresh {
    $gw->stop;
    $gw->start;
}

fresh();

($list, $k1, $k2) = keys_of('keys429', 6);
is(join(' ', map { $_->{status} } @$list), '200 200 200 200 200 200',
   '429 of one key: the other one answers');
is($k1, 1, '... and the first is left alone');
is($k2, 6, '... the second has them all');

fresh();

($list, $k1, $k2) = keys_of('keys_dead', 1);
is($list->[0]{status}, 502, '401 of all keys: 502');
is($list->[0]->json->{error}{code}, 'upstream_auth', '... which says why');
is("$k1 $k2", '1 1', '... each key was tried once');

($list, $k1, $k2, $k3) = keys_of('keys_next', 1);
is($list->[0]{status}, 200, '401 of all keys: the fallback answers');
is($k3, 1, '... with its own key');

done_testing();
