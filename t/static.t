#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The static provider: its text, or an echo, in whatever dialect and mode.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use MIME::Base64 qw(decode_base64);
use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Wellformed;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $gw = gateway(<<'END', server => <<'SERVER');
    ai_provider echo   { dialect static; }
    ai_provider canned { dialect static; text "Say \"no\", $http_x_name!"; }
    ai_provider empty  { dialect static; text ""; }

    ai_model echo   { target echo/x; price in=1 out=1; }
    ai_model canned { target canned; }
    ai_model empty  { target empty/x; }
END
    location /v1/    { ai_pass model; }
    location /echo/  { ai_pass echo; }
SERVER

my $c = $gw->client;
my $n = 0;

sub ask {
    my ($dialect, $body, %opt) = @_;
    my $path = ($dialect eq 'openai' ? '/v1/chat/completions' : '/v1/messages')
               . '?' . ++$n;

    $body = { max_tokens => 100, %$body } if $dialect eq 'anthropic';

    my $r = $c->post($path, $body, %opt);
    return ($r, settled($gw, $path) // {});
}

sub text_of {
    my ($r, $dialect) = @_;

    return $r->text if ($r->{headers}{'content-type'} // '') =~ /event-stream/;

    my $json = eval { $r->json } // return 'not JSON';

    return $dialect eq 'openai' ? $json->{choices}[0]{message}{content}
                                : join '', map { $_->{text} }
                                  @{ $json->{content} // [] };
}

my $odd = "a \"b\" \\ \x{e9}\x{1f600}\n\tc  d\x{7f} ";

for my $dialect ('openai', 'anthropic') {
    for my $stream (0, 1) {
        my $name = $dialect . ($stream ? ', stream' : '');
        my ($r, $log) = ask($dialect, chat('echo', stream => $stream));

        is($r->{status}, 200, $name);

        is_deeply([ AI::Wellformed::stream($r, $dialect) ], [],
                  '... well-formed') if $stream;

        is(text_of($r, $dialect), 'Hello there', '... echo');
        is(AI::Wellformed::model($r), 'echo', '... model');
        is($r->{headers}{'x-ai-provider'}, 'echo', '... provider');
        is("$log->{usage_state} $log->{finish_reason} $log->{target}",
           'counted stop echo/x', '... variables');
        is($log->{output_tokens}, 2, '... tokens of the output');
        cmp_ok($log->{input_tokens}, '>=', 2, '... of the input');
        is($log->{cost}, '0.000000000', '... it costs nothing');

        ($r) = ask($dialect, chat('echo', stream => $stream, messages => [
            { role => 'user', content => 'first' },
            { role => 'assistant', content => 'second' },
            { role => 'user', content => $odd } ]));
        is(text_of($r, $dialect), $odd, '... the last turn, any characters');

        ($r) = ask($dialect, chat('echo', stream => $stream, messages => [
            { role => 'user', content => [ { type => 'text', text => 'one ' },
                                           { type => 'text', text => 'two' } ]
            } ]));
        is(text_of($r, $dialect), 'one two', '... of parts');

        ($r) = ask($dialect, chat('canned', stream => $stream),
                   headers => [ 'X-Name' => "J\xc3\xb6rg <\"\\>" ]);
        is(text_of($r, $dialect), "Say \"no\", J\x{f6}rg <\"\\>!",
           '... text with variables');

        ($r) = ask($dialect, chat('canned', stream => $stream),
                   headers => [ 'X-Name' => "\xff\x80" ]);
        ok(utf8::decode(my $copy = $r->{body}), '... what is not UTF-8')
            or diag($r->{body});

        ($r) = ask($dialect, chat('empty', stream => $stream));
        is($r->{status}, 200, '... empty text');
        is(text_of($r, $dialect) // '', '', '... is empty');
    }

    # what a provider would refuse is refused

    for my $bad (chat('echo', messages => 'x'),
                 chat('echo', messages => [ { role => 'nobody',
                                              content => 'x' } ]),
                 { model => 'echo' })
    {
        my ($r, $log) = ask($dialect, $bad);
        is($r->{status}, 400, "$dialect, refused");
        is($log->{error}, 'invalid_request', '... class');
        ok(length $r->json->{error}{message}, '... message');
    }

    my $big = 'word ' x 30000;
    my ($r) = ask($dialect, chat('echo', stream => 1, messages => [
        { role => 'user', content => $big } ]));
    is(text_of($r, $dialect), $big, "$dialect: 150 KB");
    is($r->{headers}{'content-type'} =~ s/;.*//r, 'text/event-stream',
       '... type');
}

my ($r, $log) = ask('openai', chat('echo', stream => 1,
    stream_options => { include_usage => JSON::PP::true }));
my ($usage) = grep { defined } map { $_->{usage} } $r->chunks;
is($usage->{completion_tokens}, 2, 'usage in a stream that asks for it');
is($usage->{prompt_tokens}, $log->{input_tokens}, '... the logged one');

# completions

$r = $c->post('/v1/completions', { model => 'echo', prompt => 'Once upon' });
is($r->{status}, 200, 'completions');
is($r->json->{choices}[0]{text}, 'Once upon', '... echo');
is($r->json->{object}, 'text_completion', '... object');
is($r->json->{usage}{completion_tokens}, 2, '... usage');

$r = $c->post('/v1/completions', { model => 'canned', prompt => 'x',
                                   stream => JSON::PP::true },
              headers => [ 'X-Name' => 'Jo' ]);
is(join('', map { $_->{choices}[0]{text} } $r->chunks), 'Say "no", Jo!',
   '... stream');
is($r->{events}[-1]{data}, '[DONE]', '... ends');
ok(!grep({ $_->{usage} } $r->chunks), '... without usage');

# embeddings

sub embed {
    my ($input, %more) = @_;
    return $c->post('/v1/embeddings', { model => 'echo', input => $input,
                                        %more });
}

$r = embed('Hello');
is($r->{status}, 200, 'embeddings');
my $one = $r->json->{data};
is(scalar @$one, 1, '... one');
is(scalar @{ $one->[0]{embedding} }, 8, '... numbers');
cmp_ok($r->json->{usage}{prompt_tokens}, '>', 0, '... usage');
is(scalar(grep { abs > 1 } @{ $one->[0]{embedding} }), 0, '... within 1');

$r = embed([ 'Hello', 'other', 'Hello' ]);
my $data = $r->json->{data};
is_deeply([ map { $_->{index} } @$data ], [ 0, 1, 2 ], '... a list');
is_deeply($data->[0]{embedding}, $data->[2]{embedding},
          '... equal inputs are equal');
is_deeply($data->[0]{embedding}, $one->[0]{embedding}, '... everywhere');
isnt(encode_json($data->[1]{embedding}), encode_json($data->[0]{embedding}),
     '... others are not');

is(scalar @{ embed([ 1, 2, 3 ])->json->{data} }, 1, '... tokens');
is(scalar @{ embed([ [ 1, 2 ], [ 3 ] ])->json->{data} }, 2,
   '... lists of tokens');
is(scalar @{ embed('x', dimensions => 256)->json->{data}[0]{embedding} }, 256,
   '... dimensions');

$r = embed('Hello', encoding_format => 'base64', dimensions => 3);
is(length decode_base64($r->json->{data}[0]{embedding}), 12, '... base64');

for my $more ({ dimensions => 0 }, { dimensions => 100000 },
              { dimensions => 'x' })
{
    is(embed('x', %$more)->{status}, 400, '... bad dimensions');
}

$r = $c->post('/v1/embeddings', { model => 'echo' });
is($r->{status}, 400, '... no input');
is($r->json->{error}{param}, 'input', '... is named');

# the rest

$r = $c->post('/v1/messages/count_tokens',
              chat('echo', messages => [ { role => 'user',
                                           content => 'Hi' } ]));
is($r->{status}, 200, 'count_tokens');
cmp_ok($r->json->{input_tokens}, '>', 0, '... counts');

$r = $c->post('/echo/chat/completions', chat('anything'));
is($r->json->{choices}[0]{message}{content}, 'Hello there', 'ai_pass');
is($r->json->{model}, 'anything', '... with any model');
is($c->get('/echo/models')->{status}, 200, '... models');

$r = $c->get('/echo/files');
is($r->{status}, 400, '... no other path');
ok($r->json->{error}{message}, '... says so');

$r = $c->post('/v1/chat/completions', chat('echo', stream => 1),
              http => '1.0');
is($r->{body} =~ /\[DONE\]/ && $r->{status}, 200, 'HTTP/1.0');

$gw->finish;

done_testing();
