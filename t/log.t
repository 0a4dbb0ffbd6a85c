#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The lines of ai_log: what is in them, that nothing a client or a provider
# sends breaks one, prompts and answers, and how it is configured.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use Socket;
use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

# says what the last message says, and calls tools

my $echo = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $json = $req->{json};
    my @messages = @{ $json->{messages} // [] };
    my $text = @messages ? $messages[-1]{content} : 'none';

    if (($json->{model} // '') eq 'tools') {
        return json_script(200, encode_json({
            id => 'c', object => 'chat.completion', model => 'tools',
            choices => [ { index => 0, finish_reason => 'tool_calls',
                message => { role => 'assistant', content => 'Wait.',
                    tool_calls => [ map { { id => "c$_", type => 'function',
                        function => { name => "f$_",
                                      arguments => qq({"n":"$_"}) } } }
                        1, 2 ] } } ],
            usage => { prompt_tokens => 1, completion_tokens => 1 } }),
            'X-Request-Id' => "up\"\\1");
    }

    # two choices, their pieces in turns

    if ($text eq 'Two choices') {
        return json_script(200, encode_json({
            id => 'c', object => 'chat.completion', model => 'two',
            choices => [ map { { index => $_, finish_reason => 'stop',
                message => { role => 'assistant',
                             content => "choice $_ of 2" } } } 0, 1 ],
            usage => { prompt_tokens => 1, completion_tokens => 8 } }))
            if !$json->{stream};

        return sse_script([ map { "data: $_\n\n" } (map {
            my $piece = $_;
            map { encode_json({
                id => 'c', object => 'chat.completion.chunk', model => 'two',
                choices => [ { index => $_, delta => { content => $piece },
                               finish_reason => undef } ] }) } 1, 0
        } 'one ', 'two'), (map { encode_json({
            id => 'c', object => 'chat.completion.chunk', model => 'two',
            choices => [ { index => $_, delta => {},
                           finish_reason => 'stop' } ] }) } 1, 0),
            '[DONE]' ]);
    }

    return openai_script(text => $text, stream => $json->{stream},
                         usage => { in => 3, out => 4 });
});
my $echo_url = $echo->url;

my $keys = AI::Keys->new;
my $alice = $keys->add('alice', tenant => 'acme', user => "al\"ice\x{2028}",
                       team => 'search');

my $syslog = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp')
    or die "udp: $!";
my $syslog_port = $syslog->sockport;

my $http = <<"END";
    ai_data %%DIR%% interval=1s;
    ai_provider p { dialect openai; endpoint $url; key none; region eu; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider e { dialect openai; endpoint $echo_url; key none; }
    ai_provider s { dialect static; text "one two three"; }

    ai_model all    { target p/usage:1000.500.400.50;
                      price in=1.25 out=10 cached=0.125; }
    ai_model second { target p/status:503; fallback a/usage:5.6; retry off;
                      price in=1 out=1; }
    ai_model down   { target p/status:500; retry off; }
    ai_model cut    { target p/cut:3+n:50+pace:10; }
    ai_model slow   { target p/n:6+pace:60+wait:100; }
    ai_model long   { target p/n:20+pace:100; }
    ai_model static { target s/x; }
    ai_model echo   { target e/echo; }
    ai_model tools  { target e/tools; }

    ai_limit_zone all zone=few requests=1r/m;
    ai_quota_zone all zone=none tokens=1/day;

    ai_log %%DIR%%/ai.log;
    ai_log %%DIR%%/json.log json buffer=4k flush=50ms;

    map \$ai_error \$failed { "" 0; default 1; }
END

my $gw = gateway($http, files => { 'keys.json' => $keys->text },
                 server => <<"SERVER");
        location /v1/     { ai_pass model; }
        location /e/      { ai_pass e; }
        location /p/      { ai_pass p; }
        location /auth/   { ai_auth key; ai_pass model; }
        location /deny/   { deny all; ai_pass model; }
        location /few/    { ai_limit few; ai_pass model; }
        location /none/   { ai_quota none; ai_pass model; }
        location /off/    { ai_log off; ai_pass model; }
        location /if/     { ai_log %%DIR%%/if.log if=\$failed; ai_pass model; }
        location /full/   { ai_log %%DIR%%/full.log content=full max=2k;
                            ai_log %%DIR%%/hash.log content=hash;
                            ai_log %%DIR%%/small.log content=full max=256;
                            ai_pass model; }
        location /syslog/ { ai_log syslog:server=127.0.0.1:$syslog_port,tag=ai
                                   content=full max=100k;
                            ai_pass model; }
        location /return/ { ai_pass model; return 204; }
        location /page/   { error_page 404 = \@other; ai_pass model;
                            if (\$arg_x) { return 404; } }
        location \@other   { return 200 "other"; }
        location /plain   { return 200 "ok"; }
SERVER

my $decoder = JSON::PP->new->utf8;
my $n = 0;

# the lines of a log, from the one that was seen last

my %seen;

sub lines {
    my ($file, $count) = @_;
    my @new;

    $gw->wait_for(sub {
        @new = split /\n/, substr($gw->read_file($file), $seen{$file} // 0);
        return @new >= $count;
    });

    $seen{$file} = length $gw->read_file($file);

    return map { scalar eval { $decoder->decode($_) } // { bad => $_ } } @new;
}

# a request, its line in ai.log, and that of the access log

sub logged_one {
    my ($path, $body, %opt) = @_;
    my $uri = "$path?" . ++$n;
    my $r = $gw->client->post($uri, $body, %opt);

    my @new = lines('ai.log', 1);
    is(scalar(@new), 1, "$path: one line");

    my ($json) = lines('json.log', 1);
    is_deeply($json, $new[0], '... the same with a buffer');

    return ($r, $new[0], settled($gw, $uri) // {});
}

my ($r, $log, $access, @more);

# sums and names are those of the access log

for my $case ([ all => 200 ], [ second => 200 ], [ down => 500 ],
              [ cut => 200, stream => 1 ], [ static => 200 ],
              [ 'none-such' => 404 ], [ all => 200, stream => 1 ])
{
    my ($model, $status, %more) = @$case;

    ($r, $log, $access) = logged_one('/v1/chat/completions',
                                     chat($model, %more));

    is($log->{v}, 1, "$model: version");
    like($log->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
         '... time');
    is($log->{status}, $access->{status}, '... status');
    is($log->{request_id}, $r->{headers}{'x-request-id'}, '... request id');
    is($log->{client}, '127.0.0.1', '... client');
    is($log->{stream} ? 1 : 0, $access->{stream}, '... stream');
    is(scalar(@{ $log->{attempts} // [] }),
       $model =~ /^(?:static|all)$/ ? 0 : $access->{attempts},
       '... attempts, unless one has answered');
    is($log->{fallback} ? 1 : 0, $access->{fallback}, '... fallback');

    for (qw(model provider target operation region error finish_reason
            usage_state input_tokens output_tokens cached_tokens
            reasoning_tokens request_id))
    {
        my $usual = /^(?:cached|reasoning)_/ ? $access->{$_} && 0 : '';

        is($log->{$_} // $usual, $access->{$_}, "... $_");
    }

    is(defined $log->{cost} ? sprintf('%.9f', $log->{cost}) : '',
       $access->{cost}, '... cost');
    is($log->{request_model}, $model, '... as it was written');
    cmp_ok(abs($log->{duration_ms} / 1000 - $access->{time}), '<=', 0.002,
           '... duration');
    cmp_ok($log->{bytes_in}, '>', 150, '... bytes in');
    cmp_ok($log->{bytes_out}, '>', $access->{sent}, '... bytes out');

    if ($access->{attempts} && $model ne 'static') {
        is($log->{upstream_ms} + $log->{overhead_ms}, $log->{duration_ms},
           '... of which all is somewhere');
    }
}

like($gw->read_file('ai.log'), qr/"cost":0\.005800000,/,
     'cost has nine decimals');

# attempts

($r, $log) = logged_one('/v1/chat/completions', chat('second'));
my ($first, $second) = @{ $log->{attempts} };

is($first->{target}, 'p/status:503', 'first attempt');
is("$first->{status} $first->{error}", '503 overloaded', '... why it failed');
is($first->{region}, 'eu', '... region');
ok(!$first->{won} && !exists $first->{output_tokens}, '... nothing of it');
is($second->{target}, 'a/usage:5.6', 'second attempt');
cmp_ok($second->{first_ms} // -1, '>=', 0, '... its first event');
ok($second->{won} && !exists $second->{error}, '... has answered');
is("$second->{input_tokens} $second->{output_tokens}", '5 6', '... tokens');
cmp_ok($second->{start_ms}, '>=', $first->{start_ms} + $first->{duration_ms},
       '... after the first');

($r, $log) = logged_one('/v1/chat/completions', chat('slow', stream => 1));
cmp_ok($log->{ttft_ms}, '>=', 95, 'time to the first token');
cmp_ok($log->{token_ms}, '>', 20, 'time of a token');
cmp_ok($log->{token_ms}, '<', 200, '... of each');
cmp_ok($log->{duration_ms}, '>=', 350, 'duration');

($r, $log) = logged_one('/v1/chat/completions', chat('tools'));
is($log->{upstream_id}, 'up"\\1', "the provider's id");

# what would say nothing new is left out

($r, $log) = logged_one('/v1/chat/completions', chat('echo'));
is(join(' ', sort keys %$log),
   'bytes_in bytes_out client duration_ms finish_reason input_tokens model '
   . 'operation output_tokens overhead_ms provider request_id request_model '
   . 'status stream target time trace_id upstream_ms usage_state v', 'members of a usual line');

# traces

my $trace = '4bf92f3577b34da6a3ce929d0e0e4736';

for my $path ('/v1/chat/completions', '/deny/chat/completions') {
    ($r, $log) = logged_one($path, chat('all'), headers => [
        traceparent => "00-$trace-00f067aa0ba902b7-01" ]);
    is($log->{trace_id}, $trace, '... trace id of the client');
}

# other operations

$r = $gw->client->get('/v1/models');
($log) = lines('ai.log', 1);
is($log->{operation}, 'models', 'models');
ok(!exists $log->{attempts} && !exists $log->{upstream_ms}, '... nobody');
lines('json.log', 1);

($r, $log) = logged_one('/e/files/secret', {});
is($log->{operation}, 'pass', 'passed through');
is($log->{path}, '/e/files/secret', '... its path, without the query');

# refused before anybody is asked

($r, $log) = logged_one('/deny/chat/completions', chat('all'));
is("$log->{status} $log->{error} $log->{operation}", '403 permission chat',
   'refused by nginx');
is($log->{request_id}, $r->{headers}{'x-request-id'}, '... request id');

($r, $log) = logged_one('/auth/chat/completions', chat('all'));
is("$log->{status} $log->{error}", '401 auth', 'no key');
ok(!exists $log->{key_id}, '... nobody');

($r, $log) = logged_one('/auth/chat/completions', chat('all'),
                        headers => $keys->bearer('alice'));
is($log->{status}, 200, 'a key');
is("$log->{key_id} $log->{tenant} $log->{team}", 'alice acme search',
   '... who');
is($log->{user}, "al\"ice\x{2028}", '... with what is in a name');

($r, $log) = logged_one('/few/chat/completions', chat('all'));
ok(!exists $log->{limit}, 'within the limit');
($r, $log) = logged_one('/few/chat/completions', chat('all'));
is("$log->{status} $log->{limit}", '429 few', 'the limit that refused');
ok(!exists $log->{quota}, '... is no quota');
logged_one('/none/chat/completions', chat('all'));
($r, $log) = logged_one('/none/chat/completions', chat('all'));
is("$log->{status} $log->{quota}", '429 none', 'the quota that refused');

($r, $log) = logged_one('/v1/chat/completions', '{"model":');
is("$log->{status} $log->{error}", '400 invalid_request', 'no JSON');

($r, $log) = logged_one('/v1/chat/completions', 'x' x 10, method => 'PUT');
is("$log->{status}", '405', 'another method');

($r, $log) = logged_one('/return/chat/completions', {});
is($log->{status}, 204, 'answered by nginx');
like($log->{request_id}, qr/^req_/, '... has an id');

# a client that leaves

my $s = $gw->client->open('/v1/chat/completions', chat('long', stream => 1));
$s->event for 1 .. 2;
$s->abort;
($log) = lines('ai.log', 1);
is($log->{usage_state}, 'counted', 'a client that leaves');
ok($log->{attempts}[0]{canceled} || $log->{status} == 499
   || $log->{status} == 200, '... has a line');
lines('json.log', 1);

# what is no request of the gateway has none

$gw->client->get('/plain');
$gw->client->post('/off/chat/completions', chat('all'));

# an internal redirect out of the gateway

$r = $gw->client->get('/page/models?x=1');
is($r->{body}, 'other', 'redirected');

# hostile texts

my @hostile = ("a\r\nb", "\x{2028}\x{2029}\x{85}", "\x{0}\x{1}\x{7f}",
               '"},{"v":2,"status":200', "\\\\\"", "</script>",
               "\x{1F600}" x 20, "x" x 1_000_000);

my @lines_before = split /\n/, $gw->read_file('ai.log');
my $names = 0;

for my $text (@hostile) {
    my $model = substr $text, 0, 200;

    for my $path ('/v1/chat/completions', '/v1/messages', '/e/chat/completions')
    {
        $gw->client->post($path, { model => $model, max_tokens => 5,
            messages => [ { role => 'user', content => $text } ] },
            headers => [ 'X-Request-Id' => "a\"b", 'User-Agent' => "\xff" ]);
        $names++;
    }
}

# bytes that are no UTF-8, in names and paths

for my $bytes ("\xff\xfe", "\xc3", "\xed\xa0\x80", "\xe2\x80\xa8") {
    $gw->client->post('/v1/chat/completions',
                      "{\"model\":\"m$bytes\",\"messages\":[]}");
    $gw->client->post('/e/files/' . join('', map { sprintf '%%%02x', ord }
                                             split //, $bytes), '{}');
    $gw->client->post("/e/files/$bytes", '{}');
    $names += 3;
}

$gw->client->post('/e/' . 'x' x 5000, '{}');
$names++;

my @got = lines('ai.log', $names);

# the redirected one and the two before have no line of their own place
my @bad = grep { $_->{bad} } @got;
is(scalar(@bad), 0, 'each line is JSON') or diag substr $bad[0]{bad}, 0, 400;
is(scalar(grep { ($_->{path} // '') =~ m{^/plain|^/off} } @got), 0,
   'no other requests');
cmp_ok(scalar(grep { $_->{v} == 1 } @got), '>=', $names, '... of this version');
is(scalar(grep { length($_->{path} // '') > 256 } @got), 0, '... bounded');

my $raw = $gw->read_file('ai.log');
unlike($raw, qr/\xe2\x80[\xa8\xa9]|\xc2\x85|[\0-\x09\x0b-\x1f]/,
       'nothing ends a line but LF');
ok(utf8::decode(my $copy = $raw), 'all is UTF-8');

# if=

$gw->client->post('/if/chat/completions', chat($_)) for qw(all down all);
($log, @more) = lines('if.log', 1);
is($log->{error}, 'server_error', 'if: an error');
is(scalar(@more), 0, '... and nothing else');
is($gw->read_file('ai.log'), $raw, 'what is set in a location replaces');

# contents

sub contents {
    my ($path, $body, %opt) = @_;
    my $r = $gw->client->post($path, $body, %opt);
    my ($full) = lines('full.log', 1);
    my ($hash) = lines('hash.log', 1);
    my ($small) = lines('small.log', 1);

    return ($full, $hash, $small, $r);
}

my $text = "Hello \x{e4}\x{2028}\n\"you\"";
my $plain = $text;
utf8::encode($plain);

for my $path ('/full/chat/completions', '/full/messages') {
    for my $stream (JSON::PP::false, JSON::PP::true) {
        my ($full, $hash, $small) = contents($path, { model => 'echo',
            stream => $stream, max_tokens => 100, messages => [
            { role => 'user', content => [ { type => 'text', text => 'One' },
                                           { type => 'text',
                                             text => 'two' } ] },
            { role => 'assistant', content => 'No' },
            { role => 'user', content => $text } ] });

        my $name = "$path " . ($stream ? 'stream' : '');

        is_deeply($full->{prompt}, [ { role => 'user', text => "One\ntwo" },
                                     { role => 'assistant', text => 'No' },
                                     { role => 'user', text => $text } ],
                  "$name: prompt");
        is($full->{answer}, $text, '... answer');
        ok(!$full->{content_truncated}, '... whole');

        is($hash->{prompt_sha256},
           sha256_hex("user\nOne\ntwo\nassistant\nNo\nuser\n$plain\n"),
           '... hash of the prompt');
        is($hash->{answer_sha256}, sha256_hex($plain),
           '... hash of the answer');
        ok(!exists $hash->{prompt} && !exists $hash->{answer},
           '... and no text');
        is_deeply($small->{prompt}, $full->{prompt}, '... the other log');
    }
}

# longer ones

my ($full, $hash, $small) = contents('/full/chat/completions',
                                     chat('echo', messages => [
    { role => 'user', content => "\x{e4}" x 5000 } ]));
is(length $full->{answer}, 1024, 'a long answer');
cmp_ok(length $full->{prompt}[0]{text}, '>', 900, '... and prompt');
cmp_ok(length $full->{prompt}[0]{text}, '<=', 1024, '... are cut');
unlike("$full->{answer}$full->{prompt}[0]{text}", qr/[^\x{e4}]/,
       '... between characters');
ok($full->{content_truncated} && $small->{content_truncated}, '... marked');
is(length $small->{answer}, 128, '... each log has its bound');
is($hash->{answer_sha256}, sha256_hex("\xc3\xa4" x 5000),
   '... the hash is of all');

# tools

($full) = contents('/full/chat/completions', chat('tools', messages => [
    { role => 'assistant', content => undef, tool_calls => [ { id => 'x',
      type => 'function', function => { name => 'f',
                                        arguments => '{"a":"b"}' } } ] },
    { role => 'tool', tool_call_id => 'x', content => '42' } ]));
is($full->{answer}, qq(Wait.\nf1({"n":"1"})\nf2({"n":"2"})),
   'calls of tools');
is_deeply($full->{prompt}, [ { role => 'assistant', text => '{"a":"b"}' },
                             { role => 'tool', text => '42' } ],
          '... in the prompt');

# of several choices the first

for my $stream (0, 1) {
    ($full, $hash) = contents('/full/chat/completions',
                              chat('echo', n => 2, stream => $stream,
                                   messages => [
        { role => 'user', content => 'Two choices' } ]));

    my $text = $stream ? 'one two' : 'choice 0 of 2';

    is($full->{answer}, $text, "two choices, stream $stream: the first");
    is($hash->{answer_sha256}, sha256_hex($text), '... and its hash');
}

# what has the form of a key

my @secrets = ('sk-proj-Zz0123456789abcdefABCDEF', $alice,
               'AKIAIOSFODNN7EXAMPLE', 'gsk_0123456789abcdef',
               'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh');

($full) = contents('/full/chat/completions', chat('echo', messages => [
    { role => 'user', content => join ' and ', 'My keys are', @secrets,
                                 'Bearer 0123456789abcdef0123' } ]));

for my $secret (@secrets, '0123456789abcdef0123') {
    my $tail = substr $secret, -8;
    unlike("$full->{answer} $full->{prompt}[0]{text}", qr/\Q$tail\E/,
           'a key is masked');
}

like($full->{answer}, qr/^My keys are and sk-\*\*\* and .* and /,
     'the rest is there');

for my $file (qw(ai.log json.log hash.log)) {
    unlike($gw->read_file($file), qr/My keys|Hello/, "no text in $file");
}

unlike($gw->error_log, qr/My keys|\Q$secrets[0]\E/, '... nor the error log');

# other endpoints

($full) = contents('/full/embeddings', { model => 'echo',
                                         input => [ 'a', 'b' ] });
is_deeply($full->{prompt}, [ { role => 'user', text => 'a' },
                             { role => 'user', text => 'b' } ], 'inputs');

($full) = contents('/full/chat/completions', chat('static'));
is($full->{answer}, 'one two three', 'an answer that nginx made');

($full) = contents('/full/chat/completions', chat('down'));
is($full->{prompt}[0]{text}, 'Hello there', 'the prompt of a failure');
ok(!exists $full->{answer}, '... has no answer');

($full) = contents('/full/chat/completions', '{"model":"x","messages":[');
ok(!exists $full->{prompt}, 'what is no JSON has no prompt');

# syslog

sub datagram {
    my ($data) = ('');

    vec(my $in = '', fileno($syslog), 1) = 1;
    return if !select $in, undef, undef, 5;
    $syslog->recv($data, 70000);

    return $data;
}

$gw->client->post('/syslog/chat/completions', chat('all'));
my $got = datagram() // '';
like($got, qr/^<190>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ ai: \{/, 'syslog');
$got =~ s/^[^{]*//;
is(eval { $decoder->decode($got)->{output_tokens} }, 500, '... a line');
is(eval { $decoder->decode($got)->{answer} }, 'w1 w2 w3 w4 w5',
   '... its contents');

$gw->client->post('/syslog/chat/completions', chat('echo', messages => [
    { role => 'user', content => 'x' x 90000 } ]));
$got = datagram() // '';
$got =~ s/^[^{]*//;
my $long = eval { $decoder->decode($got) } // {};
ok($long->{content_truncated} && !exists $long->{prompt},
   'too long for a datagram: without contents');

# every request has one line, whatever the order

is(scalar(grep { !eval { $decoder->decode($_) } }
          map { split /\n/, $gw->read_file($_) }
          qw(ai.log json.log full.log hash.log small.log if.log)), 0,
   'all logs are JSON');

# mistakes

sub refused {
    my ($directive, $pattern, %opt) = @_;
    my $where = $opt{where} // 'http';

    my $bad = AI::Gateway->new(conf => <<"END");
events {}
http {
    @{[ $where eq 'http' ? "$directive" : '' ]}
    ai_provider p { dialect openai; endpoint http://127.0.0.1:1; key none; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { ai_pass p; @{[ $where eq 'location' ? $directive : '' ]} }
    }
}
END
    my ($rc, $out) = $bad->conf_test;
    ok($rc != 0, "refused: $directive");
    like($out, $pattern, '... why');
    like($out, qr/nginx\.conf:\d+|unknown "none" variable/, '... where');
}

refused('ai_log;', qr/invalid number of arguments/);
refused('ai_log off x;', qr/has no parameter "x"/);
refused('ai_log %%DIR%%/a; ai_log off;', qr/off excludes other/);
refused('ai_log off; ai_log %%DIR%%/a;', qr/is off at the same place/);
refused('ai_log %%DIR%%/a bufer=64k;', qr/did you mean "buffer="/);
refused('ai_log %%DIR%%/a buffer=1;', qr/it is from 4096 to/);
refused('ai_log %%DIR%%/a buffer=1t;', qr/invalid size "buffer=1t"/);
refused('ai_log %%DIR%%/a flush=1s;', qr/no "buffer="/);
refused('ai_log %%DIR%%/a buffer=64k flush=x;', qr/invalid time "flush=x"/);
refused('ai_log %%DIR%%/a content=some;', qr/"off", "hash" or "full"/);
refused('ai_log %%DIR%%/a max=1k;', qr/no "content=full"/);
refused('ai_log %%DIR%%/a content=full max=1;', qr/it is from 256 to/);
refused('ai_log %%DIR%%/a format=xml;', qr/it has "json"/);
refused('ai_log %%DIR%%/a json format=json;', qr/after another one/);
refused('ai_log %%DIR%%/a if=$none;', qr/unknown "none" variable/);
refused('ai_log syslog:server=127.0.0.1 buffer=64k;',
        qr/to syslog cannot have a buffer/);
refused('ai_log syslog:none=1;', qr/unknown syslog parameter/);
refused('ai_log %%DIR%%/a buffer=64k; ai_log %%DIR%%/a;',
        qr/was given another buffer/);
refused('access_log %%DIR%%/a combined buffer=64k; '
        . 'ai_log %%DIR%%/a buffer=64k;', qr/needs a file of its own/);
refused('ai_log %%DIR%%/a buffer=64k; '
        . 'access_log %%DIR%%/a combined buffer=64k;',
        qr/conflicting parameters/);

done_testing();
