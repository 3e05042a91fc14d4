BEGIN TRANSACTION;
CREATE TABLE answers(
  key TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, value TEXT, raw TEXT NOT NULL,
  model TEXT, fingerprint TEXT, detail TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, time REAL NOT NULL,
  PRIMARY KEY (key, attempt));
INSERT INTO "answers" VALUES('probe http://judge.test/v1 tiny',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{}',200,20,1.79589415991273045536e+09);
INSERT INTO "answers" VALUES('ef83f8e9523e35731bf15478c708a9e56a7e56754ac28d8d27fdbf8c711561ce',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 0, "draw": 0}',200,20,1.79589416002534294132e+09);
INSERT INTO "answers" VALUES('9c39d0d5b7d5254917074ecb9e6d4ded0c2bf27340c0bf84f466ee089cc843ef',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 0, "draw": 1}',200,20,1.79589416003220582007e+09);
INSERT INTO "answers" VALUES('7467a3d8557a1127822e668bdda5c093cd4a61a31cf962dd4d48f79f1628302c',0,'ok','5','{"reason": "seen", "score": 5}','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 1, "draw": 0}',200,20,1.79589416004142117498e+09);
INSERT INTO "answers" VALUES('144e6036c96d5b3beba5504995955923aee68ea40a00fe087dc66fe291a046de',0,'unparsed',NULL,'I would say the score is 4 out of 5, because it is good.','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 1, "draw": 1, "why": "it ends neither with a line `SCORE: N` nor with a JSON object that has a score"}',200,20,1.79589416006476569175e+09);
INSERT INTO "answers" VALUES('76e6c50250b815e1bcf4c02fa424de4204eea36952f5361dc3fb050684eb41b0',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 0, "draw": 0}',200,20,1.79589416007720971109e+09);
INSERT INTO "answers" VALUES('583a3da96d570468760903a374317b70e4f8292a0176cf5ac9f5a2307dd58412',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 0, "draw": 1}',200,20,1.79589416009342980385e+09);
INSERT INTO "answers" VALUES('bfe61bacf7a395aa349643484be5a1f1b7bf1e4a2356006cec30451f7c1fe63b',0,'ok','5','{"reason": "seen", "score": 5}','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 1, "draw": 0}',200,20,1.79589416010486674305e+09);
INSERT INTO "answers" VALUES('4383580a533ab0e662b1a4d90ade0e6ed71f0c9659e1dfae010074734a898fbc',0,'ok','5','{"reason": "seen", "score": 5}','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 1, "draw": 1}',200,20,1.79589416013365483289e+09);
INSERT INTO "answers" VALUES('ca52e32497d305f3a0709638708de0e26d784c609eb735d194265441aed815f9',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 0, "draw": 0}',200,20,1.79589416016892910003e+09);
INSERT INTO "answers" VALUES('8d682e01360d674f0f7814b5e4183924cd9347c5b98a3e757d667f679200c48d',0,'ok','3','{"reason": "seen", "score": 3}','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 0, "draw": 1}',200,20,1.79589416017916893957e+09);
INSERT INTO "answers" VALUES('478e2b5ef15dbb1946f99d3d13eb2df4c563bca56779e9efbf163be0727dcef4',0,'ok','5','{"reason": "seen", "score": 5}','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 1, "draw": 0}',200,20,1.79589416019110536572e+09);
INSERT INTO "answers" VALUES('7efbf00200fb7a10a59f309733ac25fef3767f0e5deb42a9b709fbc5891e97bd',0,'ok','5','{"reason": "seen", "score": 5}','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 1, "draw": 1}',200,20,1.79589416021113729474e+09);
CREATE TABLE batches(
  number INTEGER PRIMARY KEY, batch TEXT NOT NULL, event TEXT NOT NULL, value TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE claims(key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE failures(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('schema','1');
INSERT INTO "meta" VALUES('protocol','caption/1/50bd25f0ff59');
INSERT INTO "meta" VALUES('salt','3024134bb4e62faae46cf6baebaec1da');
INSERT INTO "meta" VALUES('answer_format http://judge.test/v1 tiny','json');
CREATE TABLE sent(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "sent" VALUES(1,'probe http://judge.test/v1 tiny',0,'46f78e17208d433e9c1270f0e37973b4',1.79589415990091633796e+09);
INSERT INTO "sent" VALUES(2,'ef83f8e9523e35731bf15478c708a9e56a7e56754ac28d8d27fdbf8c711561ce',0,'46f78e17208d433e9c1270f0e37973b4',1.79589415992247033115e+09);
INSERT INTO "sent" VALUES(3,'9c39d0d5b7d5254917074ecb9e6d4ded0c2bf27340c0bf84f466ee089cc843ef',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416002599906924e+09);
INSERT INTO "sent" VALUES(4,'7467a3d8557a1127822e668bdda5c093cd4a61a31cf962dd4d48f79f1628302c',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416003225159652e+09);
INSERT INTO "sent" VALUES(5,'144e6036c96d5b3beba5504995955923aee68ea40a00fe087dc66fe291a046de',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416005211210255e+09);
INSERT INTO "sent" VALUES(6,'76e6c50250b815e1bcf4c02fa424de4204eea36952f5361dc3fb050684eb41b0',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416006510972983e+09);
INSERT INTO "sent" VALUES(7,'583a3da96d570468760903a374317b70e4f8292a0176cf5ac9f5a2307dd58412',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416007725834849e+09);
INSERT INTO "sent" VALUES(8,'bfe61bacf7a395aa349643484be5a1f1b7bf1e4a2356006cec30451f7c1fe63b',0,'46f78e17208d433e9c1270f0e37973b4',1.7958941600934925079e+09);
INSERT INTO "sent" VALUES(9,'4383580a533ab0e662b1a4d90ade0e6ed71f0c9659e1dfae010074734a898fbc',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416011496734622e+09);
INSERT INTO "sent" VALUES(10,'ca52e32497d305f3a0709638708de0e26d784c609eb735d194265441aed815f9',0,'46f78e17208d433e9c1270f0e37973b4',1.7958941601483223438e+09);
INSERT INTO "sent" VALUES(11,'8d682e01360d674f0f7814b5e4183924cd9347c5b98a3e757d667f679200c48d',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416016899299614e+09);
INSERT INTO "sent" VALUES(12,'478e2b5ef15dbb1946f99d3d13eb2df4c563bca56779e9efbf163be0727dcef4',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416018017554279e+09);
INSERT INTO "sent" VALUES(13,'7efbf00200fb7a10a59f309733ac25fef3767f0e5deb42a9b709fbc5891e97bd',0,'46f78e17208d433e9c1270f0e37973b4',1.79589416020413422583e+09);
CREATE TABLE totals(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO "totals" VALUES('sent',13);
INSERT INTO "totals" VALUES('answers',13);
INSERT INTO "totals" VALUES('prompt_tokens',2600);
INSERT INTO "totals" VALUES('completion_tokens',260);
CREATE INDEX failures_key ON failures(key);
CREATE INDEX claims_owner ON claims(owner);
CREATE TRIGGER answers_UPDATE BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
CREATE TRIGGER answers_DELETE BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
CREATE TRIGGER sent_UPDATE BEFORE UPDATE ON sent BEGIN SELECT RAISE(ABORT, 'sent is append-only'); END;
CREATE TRIGGER sent_DELETE BEFORE DELETE ON sent BEGIN SELECT RAISE(ABORT, 'sent is append-only'); END;
CREATE TRIGGER failures_UPDATE BEFORE UPDATE ON failures BEGIN SELECT RAISE(ABORT, 'failures is append-only'); END;
CREATE TRIGGER failures_DELETE BEFORE DELETE ON failures BEGIN SELECT RAISE(ABORT, 'failures is append-only'); END;
CREATE TRIGGER batches_UPDATE BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'batches is append-only'); END;
CREATE TRIGGER batches_DELETE BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'batches is append-only'); END;
COMMIT;
