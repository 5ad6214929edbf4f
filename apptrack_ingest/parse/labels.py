"""What job boards write in front of a candidate's details, in the languages their mails come in."""

import re

# By kind of detail. Compared in lower case, letters only, so that "E-Mail-Adresse *" is "e mail adresse".
_WORDS = {
    "name": """name, full name, your name, candidate, candidate name, candidates name, applicant, applicant name,
        applicants name, contact name, vor und nachname, bewerber, bewerberin, name des bewerbers, kandidat, kandidatin,
        nom complet, nom et prénom, nom prénom, candidat, nombre completo, nombre y apellidos, candidato, nome,
        nome completo, naam, volledige naam, kandidaat, sollicitant, imię i nazwisko, kandydat""",
    "first name": """first name, firstname, given name, forename, vorname, prénom, prenom, nombre, primeiro nome,
        voornaam, imię""",
    "last name": """last name, lastname, surname, family name, nachname, familienname, nom, nom de famille, apellidos,
        apellido, cognome, sobrenome, achternaam, nazwisko""",
    "email": """email, e mail, email address, e mail address, emailaddress, contact email, email id, mail,
        e mail adresse, mailadresse, adresse e mail, adresse email, courriel, correo, correo electrónico, e mailadres,
        emailadres, adres e mail, posta elettronica, indirizzo email""",
    "phone": """phone, phone number, phone no, telephone, telephone number, tel, tel no, tel nr, mobile, mobile number,
        mobile phone, mobile no, cell, cell phone, cellphone, home phone, work phone, home, daytime phone,
        evening phone, contact number, contact no, telefon, telefonnummer, handy, handynummer, mobil, mobilnummer,
        mobiltelefon, rufnummer, téléphone, téléphone portable, portable, mobile tél, tél, teléfono, teléfono móvil,
        móvil, telefono, cellulare, telefone, celular, telemóvel, telefoon, telefoonnummer, mobiel, gsm,
        numer telefonu, telefon komórkowy, komórka, whatsapp""",
    "address": """address, postal address, home address, street address, mailing address, adresse, anschrift,
        postanschrift, wohnanschrift, adresse postale, dirección, domicilio, indirizzo, endereço, adres,
        adres zamieszkania""",
}
_KINDS = {" ".join(label.split()): kind for kind, labels in _WORDS.items() for label in labels.split(",")}
# "Label: value", "Label = value", or two cells of a table (which arrive with a tab between them).
_LABELLED = re.compile(
    r"\s{0,20}[*•·\-–>|]{0,3}\s{0,5}([^\W\d_][^\t:=\n]{1,40}?)[ ]{0,5}[*]{0,2}(?:[:=]|\t)+[*]{0,2}(.*)"
)
# Their first words, and how a line begins whose first word may be one of them: nearly no other line need be looked at.
_FIRST_WORDS = frozenset(label.partition(" ")[0] for label in _KINDS)
_BEGINNING = re.compile(r"\s{0,20}[*•·\-–>|]{0,3}\s{0,5}([^\W\d_]++)['’]?")
_NO_LETTERS = re.compile(r"[\W\d_]+")


def labelled(line: str) -> tuple[str, str, str] | None:
    """(kind, label as written, value) of a line that names a candidate's detail; the value may be empty."""
    beginning = _BEGINNING.match(line)
    if beginning is None or (beginning[1].lower() not in _FIRST_WORDS and line[beginning.end() - 1] not in "'’"):
        return None
    found = _LABELLED.match(line)
    if found is None:
        return None
    label = found[1].lower().replace("'", "").replace("’", "")
    kind = _KINDS.get(" ".join(_NO_LETTERS.sub(" ", label).split()))
    return (kind, found[1].strip(), found[2].strip(" \t|*")) if kind else None
