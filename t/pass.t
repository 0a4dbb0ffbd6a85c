#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_pass PROVIDER: any other path goes through as it is, without the client's
# credentials; docs/headers.md has the rules.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $bytes = join('', map { chr } 0 .. 255) x 400;

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $path = $req->{path};
    my @head = ('Content-Type' => 'application/x-test');

    if ($path =~ m{/status/(\d+)}) {
        return [ [ 'head', $1, [ @head, 'Content-Length' => 5,
                                 'Retry-After' => 7 ] ],
                 [ 'chunk', "<$1>" ], [ 'end' ] ];
    }

    if ($path =~ m{/redirect}) {
        return [ [ 'head', 302, [ Location => 'https://example.com/f?x=1',
                                  'Content-Length' => 0 ] ], [ 'end' ] ];
    }

    if ($path =~ m{/empty}) {
        return [ [ 'head', 204, [] ], [ 'end' ] ];
    }

    if ($path =~ m{/bytes}) {
        return [ [ 'head', 200, [ @head ] ],
                 (map { [ 'chunk', $_ ] } unpack '(a9000)*', $bytes),
                 [ 'end' ] ];
    }

    if ($path =~ m{/gzip}) {
        return [ [ 'head', 200, [ @head, 'Content-Encoding' => 'gzip',
                                  'Content-Length' => 4 ] ],
                 [ 'chunk', "\x1f\x8b\x08\x00" ], [ 'end' ] ];
    }

    if ($path =~ m{/slow}) {
        return [ [ 'head', 200, { 'Content-Type' => 'text/event-stream' } ],
                 (map { ([ 'chunk', "data: $_\n\n" ], [ 'sleep', 300 ]) }
                  1 .. 3), [ 'end' ] ];
    }

    if ($path =~ m{/cut}) {
        return [ [ 'head', 200, [ 'Content-Length' => 100 ] ],
                 [ 'chunk', 'abc' ], [ 'sleep', 100 ], [ 'close' ] ];
    }

    if ($path =~ m{/close}) {
        return [ [ 'close' ] ];
    }

    if ($path =~ m{/headers}) {
        return [ [ 'head', 200, [ @head, 'Content-Length' => 0,
            'X-Other' => 'kept', 'ETag' => '"e"', 'Link' => '<a>',
            'Content-Disposition' => 'attachment; filename="a b"',
            'Last-Modified' => 'Wed, 01 Jan 2025 00:00:00 GMT',
            'Cache-Control' => 'max-age=7', 'Location' => '/elsewhere',
            'x-request-id' => 'req-of-provider', 'Server' => 'theirs',
            'Set-Cookie' => 'a=b', 'Keep-Alive' => 'timeout=5',
            'X-RateLimit-Limit-Tokens' => 5, 'X-Accel-Redirect' => '/secret',
            'X-Accel-Limit-Rate' => 1, 'X-Accel-Charset' => 'koi8-r',
            'anthropic-ratelimit-requests-limit' => 5,
            'anthropic-organization-id' => 'o', 'openai-organization' => 'o',
            'anthropic-workspace-id' => 'w', 'openai-project' => 'o',
            'openai-version' => '2020-10-01', 'x-ai-model' => 'fake',
            'Date' => 'Wed, 01 Jan 2025 00:00:00 GMT', ] ], [ 'end' ] ];
    }

    # a request's body as it came
    return [ [ 'head', 200, [ @head, 'Content-Length' => length $req->{body}
                              ] ],
             $req->{method} eq 'HEAD' ? () : [ 'chunk', $req->{body} ],
             [ 'end' ] ];
});

my $url = $p->url;
my $gw = gateway(<<"END", server => <<'SERVER');
    client_max_body_size 8m;

    ai_provider p    { dialect openai; endpoint $url; key sk-gw;
                       header X-Set by-us; header X-Drop ""; }
    ai_provider deep { dialect openai; endpoint $url/a/b/v1/; key sk-gw; }
    ai_provider a    { dialect anthropic; endpoint $url; key sk-gw; }
    ai_provider mine { dialect openai; endpoint $url; client_key pass; }
    ai_provider down { dialect openai; endpoint http://127.0.0.1:1;
                       key sk-gw; }
END
    location /openai/v1/ { ai_pass p; }
    location /plain/     { ai_pass p; }
    location /deep/      { ai_pass deep; }
    location /claude/    { ai_pass a; }
    location /mine/      { ai_pass mine; }
    location /down/      { ai_pass down; }
    location /v1/        { ai_pass model; }
    location /secret     { internal; return 200 secret; }
SERVER

my $c = $gw->client;
my $r;

# what the provider gets

sub got {
    my ($method, $path, $body, %opt) = @_;

    $p->reset;
    $r = $c->request($method, $path, $body, %opt);

    my ($req) = $p->log;
    return $req // {};
}

for ([ '/openai/v1/files' => '/v1/files' ], [ '/plain/files' => '/v1/files' ],
     [ '/deep/files' => '/a/b/v1/files' ],
     [ '/claude/v1/files' => '/v1/files' ],
     [ '/plain/files/f-1/content' => '/v1/files/f-1/content' ],
     [ '/plain/a%20b/c%2Fd' => '/v1/a%20b/c%2Fd' ],
     [ '/plain/%C3%A9' => '/v1/%C3%A9' ],
     [ '/plain/files/' => '/v1/files/' ])
{
    my $req = got('GET', $_->[0]);
    is($r->{status}, 200, "$_->[0]: passed");
    is($req->{path}, $_->[1], "... as $_->[1]");
    is($req->{query}, '', '... without a query');
}

for ([ 'a=1&b=2' => 'a=1&b=2' ], [ 'key=secret' => '' ],
     [ 'key=secret&a=1' => 'a=1' ], [ 'a=1&key=secret' => 'a=1' ],
     [ 'a=1&key=secret&b=%20' => 'a=1&b=%20' ], [ 'monkey=1' => 'monkey=1' ],
     [ 'a&b=' => 'a&b=' ])
{
    is(got('GET', "/plain/files?$_->[0]")->{query}, $_->[1],
       "query $_->[0]");
}

for my $method (qw(GET POST PUT PATCH DELETE OPTIONS)) {
    my $body = $method =~ /^P/ ? "$method \0\r\n\xff{" : undef;
    my $req = got($method, '/plain/things', $body,
                  headers => [ 'Content-Type' => 'application/octet-stream' ]);

    is($r->{status}, 200, "$method: passed");
    is($req->{method}, $method, '... method');
    is($req->{body}, $body // '', '... body');
    is($r->{body}, $body // '', '... answer');
    is($req->{headers}{'content-type'}, 'application/octet-stream',
       '... its type');
    is($r->{headers}{'content-type'}, 'application/x-test', '... type');
}

my $req = got('HEAD', '/plain/things');
is("$r->{status} $req->{method}", '200 HEAD', 'HEAD: passed');
is($r->{headers}{'content-length'}, 0, '... length');
is($r->{body}, '', '... no body');
is(got('GET', '/plain/files')->{nth}, 1 + $req->{nth},
   '... its connection is used again');

my $big = $bytes x 20;
$req = got('POST', '/plain/upload', $big,
           headers => [ 'Content-Type' => 'multipart/form-data; boundary=x' ]);
ok($req->{body} eq $big, 'a body of 2 MB');
is($req->{headers}{'content-length'}, length $big, '... with its length');
is($req->{headers}{'content-type'}, 'multipart/form-data; boundary=x',
   '... and type');
ok($r->{body} eq $big, '... and back');

$req = got('POST', '/plain/upload', $bytes, chunked => 1);
ok($req->{body} eq $bytes, 'a chunked body');

# headers of the request

my @credentials = (Authorization => 'Bearer mine', 'x-api-key' => 'mine',
                   'api-key' => 'mine', 'x-goog-api-key' => 'mine');

$req = got('GET', '/plain/files', undef, headers => [ @credentials,
    Cookie => 'mine=1', 'X-Forwarded-For' => '1.2.3.4',
    'X-Real-IP' => '1.2.3.4', Forwarded => 'for=1.2.3.4',
    'X-Request-Id' => 'not mine', 'Proxy-Authorization' => 'mine',
    'Keep-Alive' => '5', TE => 'trailers', Trailer => 'x', Expect => 'x',
    'X-Set' => 'by-me', 'X-Drop' => 'by-me', 'X-Kept' => "a\tb",
    'OpenAI-Beta' => 'assistants=v2', 'User-Agent' => 'test/1',
    'Accept' => 'a/b', 'Range' => 'bytes=0-1', 'Accept-Encoding' => 'br',
    'X-Kept-Too' => '', 'X-Idempotency' => 'i' ]);
my $h = $req->{headers};

is($h->{authorization}, 'Bearer sk-gw', 'the gateway\'s key');
is($h->{host}, '127.0.0.1:' . $p->port, 'the provider\'s host');
is($h->{'x-set'}, 'by-us', 'the configured header');
is(scalar(grep { lc $_->[0] eq 'x-set' } @{ $req->{raw_headers} }), 1,
   '... once');
ok(!exists $h->{'x-drop'}, '... an empty one');
is($h->{'x-kept'}, "a\tb", 'others go on');
is($h->{'x-idempotency'}, 'i', '... like this');
is($h->{'openai-beta'}, 'assistants=v2', '... and this');
is($h->{'user-agent'}, 'test/1', '... User-Agent');
like($h->{'x-request-id'}, qr/^req_/, '... x-request-id is the gateway\'s');
is($h->{accept}, 'a/b', '... Accept');
is($h->{range}, 'bytes=0-1', '... Range');

ok(!exists $h->{$_}, "$_ does not")
    for qw(x-api-key api-key x-goog-api-key cookie x-forwarded-for x-real-ip
           forwarded proxy-authorization keep-alive te trailer expect);
ok(!grep({ /mine|1\.2\.3\.4/ } map { $_->[1] } @{ $req->{raw_headers} }),
   'nothing of the client\'s');

$req = got('GET', '/claude/v1/files', undef,
           headers => [ @credentials, 'anthropic-beta' => 'files' ]);
is($req->{headers}{'x-api-key'}, 'sk-gw', 'Anthropic: the key');
ok(!exists $req->{headers}{authorization}, '... alone');
is($req->{headers}{'anthropic-beta'}, 'files', '... beta');

$req = got('GET', '/mine/files', undef,
           headers => [ 'x-api-key' => 'own' ]);
is($req->{headers}{authorization}, 'Bearer own', 'client_key pass');
ok(!exists $req->{headers}{'x-api-key'}, '... in one form');

# headers of the answer

got('GET', '/plain/headers');
$h = $r->{headers};

is($h->{'x-other'}, 'kept', 'header of the answer');
is($h->{etag}, '"e"', '... ETag');
is($h->{link}, '<a>', '... Link');
is($h->{'content-disposition'}, 'attachment; filename="a b"',
   '... Content-Disposition');
is($h->{'cache-control'}, 'max-age=7', '... Cache-Control');
is($h->{'last-modified'}, 'Wed, 01 Jan 2025 00:00:00 GMT',
   '... Last-Modified');
is($h->{'openai-version'}, '2020-10-01', '... openai-version');
like($h->{'x-request-id'}, qr/^req_/, '... the gateway\'s request id');
is($h->{'x-upstream-request-id'}, 'req-of-provider', '... and its own');
unlike($h->{server}, qr/theirs/, '... not Server');
unlike($h->{date}, qr/2025/, '... not Date');
isnt($h->{'x-ai-model'} // '', 'fake', '... not x-ai-model');
ok(!exists $h->{$_}, "... not $_")
    for qw(set-cookie x-ratelimit-limit-tokens x-accel-redirect
           x-accel-limit-rate x-accel-charset anthropic-organization-id
           anthropic-ratelimit-requests-limit anthropic-workspace-id
           openai-organization openai-project);
unlike($r->{body}, qr/secret/, '... nor what they would do');

# answers

for my $status (200, 201, 400, 401, 404, 429, 500, 503) {
    my $n = () = got('GET', "/plain/status/$status");
    is("$r->{status} $r->{body}", "$status <$status>", "status $status");
    is($r->{headers}{'retry-after'}, 7, '... with its header');
    is(scalar(() = $p->log), 1, '... asked once') if $status < 500;
}

got('GET', '/plain/redirect');
is($r->{status}, 302, 'a redirection is relayed');
is($r->{headers}{location}, 'https://example.com/f?x=1', '... Location');

got('DELETE', '/plain/empty');
is($r->{status}, 204, 'an empty answer');
is($r->{body}, '', '... no body');
got('GET', '/plain/files');
is($r->{status}, 200, '... and the next request');

got('GET', '/plain/bytes');
ok($r->{done} && $r->{body} eq $bytes, 'bytes');
got('GET', '/plain/gzip');
is($r->{headers}{'content-encoding'} . length $r->{body}, 'gzip4',
   'compressed ones');

my $s = $c->open('/plain/slow', undef, method => 'GET');
my $e = $s->event;
is($e->{data}, 1, 'a stream');
$s->finish;
cmp_ok($s->{events}[2]{time} - $s->{events}[0]{time}, '>', 0.2,
       '... comes as it is made');
is(scalar @{ $s->{events} }, 3, '... whole');

got('GET', '/plain/cut');
ok(!$r->{done}, 'an answer that is cut does not look whole');

got('GET', '/plain/close');
is($r->{status}, 502, 'no answer');
is($r->json->{error}{code}, 'upstream_unreachable', '... is an error');
got('POST', '/down/files', '{}');
is($r->{status}, 502, 'nobody there');
got('POST', '/down/files', '{}',
    headers => [ 'anthropic-version' => '2023-06-01' ]);
is($r->json->{type}, 'error', '... for Anthropic');

# variables

got('GET', '/plain/files?log');
my $log = settled($gw, '/plain/files?log');
is("$log->{operation} $log->{usage_state} $log->{provider} $log->{attempts}",
   'pass none p 1', 'variables');

# what the gateway understands is not just passed

got('POST', '/plain/chat/completions', { model => 'm' });
is($r->{headers}{'x-ai-model'}, 'm', 'a chat is one');

# ai_pass model passes nothing

for my $method ('GET', 'POST') {
    got($method, '/v1/files', $method eq 'POST' ? '{}' : undef);
    is($r->{status}, 404, "ai_pass model: $method");
    is($r->json->{error}{code}, 'unknown_url', '... code');
    is($r->json->{error}{message}, 'no such endpoint: /v1/files',
       '... message');
    is(scalar(() = $p->log), 0, '... nobody is asked');
}

$gw->finish;

done_testing();
